//! Flower App Bundles: what identifies an app, and what it is configured with unless told otherwise.
//!
//! A bundle is a ZIP archive. Only its `pyproject.toml` matters here; the app processes check the
//! rest when they install it (Flower 1.22, `common/config.py`).

use std::io::{Cursor, Read};

use bytes::Bytes;
use flwr_api::{FabHash, FabInfo, UserConfig};
use toml::{Table, Value};

use crate::config::flatten;

/// The largest bundle that is accepted, in bytes.
pub const FAB_BYTES_MAX: usize = 10 << 20;

/// The largest `pyproject.toml` that is read, in bytes once unpacked.
const PYPROJECT_BYTES_MAX: u64 = 1 << 20;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is too large.
    #[error(
        "the app bundle has {0} bytes; {FAB_BYTES_MAX} are allowed: leave data files out with .gitignore"
    )]
    TooLarge(usize),
    /// The client named another hash.
    #[error("the app bundle does not hash to what the client says; submit it again")]
    WrongHash,
    /// It cannot be opened.
    #[error("the app bundle is no readable ZIP archive with a pyproject.toml")]
    Archive(#[from] zip::result::ZipError),
    /// The pyproject.toml cannot be read.
    #[error("the app's pyproject.toml cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// The pyproject.toml is no TOML.
    #[error("the app's pyproject.toml is not valid TOML")]
    Toml(#[from] toml::de::Error),
    /// Something is missing or of the wrong kind.
    #[error("the app's pyproject.toml: {0}")]
    Content(String),
}

/// Reads what identifies the app, and checks what Flower requires of it.
///
/// # Errors
/// What is wrong with the bundle.
pub fn inspect(content: &Bytes) -> Result<FabInfo, Refusal> {
    let pyproject = pyproject(content)?;
    let app = check(&pyproject)?;
    Ok(FabInfo {
        id: format!("{}/{}", app.publisher, app.name),
        version: app.version.to_owned(),
        hash: FabHash::of(content),
    })
}

/// Reads the values that the app is run with where a run replaces none, and checks what Flower
/// requires of the app. The keys of nested tables are joined by dots, and values keep the types
/// they have in TOML.
///
/// # Errors
/// What is wrong with the bundle.
pub fn default_config(content: &Bytes) -> Result<UserConfig, Refusal> {
    let pyproject = pyproject(content)?;
    Ok(check(&pyproject)?.config)
}

/// What is read of a pyproject.toml.
struct App<'a> {
    name: &'a str,
    version: &'a str,
    publisher: &'a str,
    config: UserConfig,
}

fn pyproject(content: &Bytes) -> Result<Table, Refusal> {
    if content.len() > FAB_BYTES_MAX {
        return Err(Refusal::TooLarge(content.len()));
    }
    let mut archive = zip::ZipArchive::new(Cursor::new(content))?;
    let mut text = String::new();
    archive
        .by_name("pyproject.toml")?
        .take(PYPROJECT_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > PYPROJECT_BYTES_MAX {
        return Err(Refusal::Content(format!(
            "it is larger than {PYPROJECT_BYTES_MAX} bytes"
        )));
    }
    Ok(text.parse()?)
}

fn check(pyproject: &Table) -> Result<App<'_>, Refusal> {
    let name = required(pyproject, "project.name")?;
    let version = required(pyproject, "project.version")?;
    let publisher = required(pyproject, "tool.flwr.app.publisher")?;
    for app in ["serverapp", "clientapp"] {
        check_reference(pyproject, &format!("tool.flwr.app.components.{app}"))?;
    }
    let config = match find(pyproject, CONFIG) {
        Some(Value::Table(config)) => flatten(config.clone()).map_err(|key| {
            Refusal::Content(format!(
                "`{CONFIG}.{key}` is neither text, number nor truth value"
            ))
        })?,
        Some(_) => return Err(Refusal::Content(format!("`{CONFIG}` is not a table"))),
        None => UserConfig::new(),
    };
    Ok(App {
        name,
        version,
        publisher,
        config,
    })
}

fn find<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let mut keys = path.split('.');
    let mut value = table.get(keys.next()?)?;
    for key in keys {
        value = value.as_table()?.get(key)?;
    }
    Some(value)
}

fn required<'a>(pyproject: &'a Table, path: &str) -> Result<&'a str, Refusal> {
    let value =
        find(pyproject, path).ok_or_else(|| Refusal::Content(format!("`{path}` is missing")))?;
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Refusal::Content(format!("`{path}` is not a text")))
}

/// `module:attribute`, both present.
fn check_reference(pyproject: &Table, path: &str) -> Result<(), Refusal> {
    match required(pyproject, path)?.split_once(':') {
        Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => Ok(()),
        _ => Err(Refusal::Content(format!(
            "`{path}` is not of the form `module:attribute`"
        ))),
    }
}

/// Where an app's defaults are.
const CONFIG: &str = "tool.flwr.app.config";

#[cfg(test)]
mod tests {
    use super::*;
    use flwr_api::Scalar;
    use std::io::Write;
    use zip::CompressionMethod;

    const GOOD: &str = r#"
        [project]
        name = "digits"
        version = "1.0.0"
        [tool.flwr.app]
        publisher = "flower"
        [tool.flwr.app.components]
        serverapp = "digits.server_app:app"
        clientapp = "digits.client_app:app"
        [tool.flwr.app.config]
        lr = 0.1
        nest.deep = true
    "#;

    fn bundle(pyproject: &str, method: CompressionMethod) -> Bytes {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        zip.start_file("pyproject.toml", options).unwrap();
        zip.write_all(pyproject.as_bytes()).unwrap();
        zip.finish().unwrap().into_inner().into()
    }

    /// The good bundle with another text in it.
    fn changed(from: &str, to: &str) -> Bytes {
        assert!(GOOD.contains(from), "{from}");
        bundle(&GOOD.replace(from, to), CompressionMethod::Stored)
    }

    fn check_config(lines: &str, expected: &[(&str, Scalar)]) {
        let config = default_config(&changed("lr = 0.1\n        nest.deep = true", lines));
        let expected: UserConfig = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        assert_eq!(config.unwrap(), expected, "{lines}");
    }

    #[test]
    fn stored_and_deflated_bundles_are_read() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let content = bundle(GOOD, method);
            let info = inspect(&content).unwrap();
            assert_eq!(
                (info.id.as_str(), info.version.as_str()),
                ("flower/digits", "1.0.0")
            );
            assert_eq!(info.hash, FabHash::of(&content));
            assert_eq!(default_config(&content).unwrap().len(), 2);
        }
    }

    #[test]
    fn what_flower_requires_is_required() {
        for (from, to) in [
            ("name = \"digits\"", ""),
            ("version = \"1.0.0\"", "version = 1"),
            ("publisher = \"flower\"", ""),
            (
                "publisher = \"flower\"",
                "publisher = \"flower\"\nconfig = 1",
            ),
            ("digits.server_app:app", "digits.server_app"),
            ("digits.client_app:app", ":app"),
            ("lr = 0.1", "lr = [1]"),
            ("lr = 0.1", "lr = 2020-01-01"),
            ("lr = 0.1", "lr = 1\nlr = 2"),
            ("lr = 0.1", "lr = 9223372036854775808"),
            ("[project]", "[project"),
        ] {
            let content = changed(from, to);
            assert!(inspect(&content).is_err(), "{from} -> {to}");
            assert!(default_config(&content).is_err(), "{from} -> {to}");
        }
        assert!(inspect(&Bytes::from_static(b"not a zip")).is_err());
        assert!(matches!(
            inspect(&vec![0; FAB_BYTES_MAX + 1].into()),
            Err(Refusal::TooLarge(_))
        ));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, expected) in [
            (
                "lr = 0.1",
                "nested.lr = [1]",
                "the app's pyproject.toml: `tool.flwr.app.config.nested.lr` is neither text, number nor truth value",
            ),
            (
                "publisher = \"flower\"",
                "",
                "the app's pyproject.toml: `tool.flwr.app.publisher` is missing",
            ),
        ] {
            let refusal = inspect(&changed(from, to)).unwrap_err();
            assert_eq!(refusal.to_string(), expected);
        }
    }

    /// As `get_fused_config_from_fab` of Flower 1.22 says for the same bundles.
    #[test]
    fn defaults_keep_their_types_under_joined_keys() {
        check_config("", &[]);
        check_config("empty = {}", &[]);
        check_config(
            "i = 1\nf = 1.0\nb = true\ns = \"x\"\nn.deep.er = 2\n[tool.flwr.app.config.t]\nu = -3",
            &[
                ("i", Scalar::Sint64(1)),
                ("f", Scalar::Double(1.0)),
                ("b", Scalar::Bool(true)),
                ("s", Scalar::String("x".into())),
                ("n.deep.er", Scalar::Sint64(2)),
                ("t.u", Scalar::Sint64(-3)),
            ],
        );
        check_config("a = 1\r\n", &[("a", Scalar::Sint64(1))]);
        let without = changed(
            "[tool.flwr.app.config]\n        lr = 0.1\n        nest.deep = true",
            "",
        );
        assert_eq!(default_config(&without).unwrap(), UserConfig::new());
    }

    #[test]
    fn endless_nesting_is_refused() {
        let keys = vec!["a"; 100_000].join(".");
        assert!(inspect(&changed("lr", &keys)).is_err());
        let tables = "{a=".repeat(100_000);
        assert!(inspect(&changed("0.1", &tables)).is_err());
    }
}

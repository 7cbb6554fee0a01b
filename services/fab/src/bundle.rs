//! Flower App Bundles: what identifies an app.
//!
//! A bundle is a ZIP archive. Only its `pyproject.toml` matters here; the app processes check the
//! rest when they install it (Flower 1.22, `common/config.py`).

use std::io::{Cursor, Read};

use bytes::Bytes;
use flwr_api::{FabHash, FabInfo};
use toml::{Table, Value};

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
    let pyproject: Table = text.parse()?;
    let name = required(&pyproject, "project.name")?;
    let version = required(&pyproject, "project.version")?;
    let publisher = required(&pyproject, "tool.flwr.app.publisher")?;
    for app in ["serverapp", "clientapp"] {
        check_reference(&pyproject, &format!("tool.flwr.app.components.{app}"))?;
    }
    if let Some(config) = find(&pyproject, "tool.flwr.app.config") {
        check_config(config, "tool.flwr.app.config")?;
    }
    Ok(FabInfo {
        id: format!("{publisher}/{name}"),
        version: version.to_owned(),
        hash: FabHash::of(content),
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

/// Nested tables of scalars.
fn check_config(value: &Value, path: &str) -> Result<(), Refusal> {
    match value {
        Value::Table(table) => table
            .iter()
            .try_for_each(|(key, value)| check_config(value, &format!("{path}.{key}"))),
        Value::Array(_) | Value::Datetime(_) => Err(Refusal::Content(format!(
            "`{path}` is neither text, number nor truth value"
        ))),
        Value::Boolean(_) | Value::Float(_) | Value::Integer(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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

    fn bundle(pyproject: &str, method: zip::CompressionMethod) -> Bytes {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        zip.start_file("pyproject.toml", options).unwrap();
        zip.write_all(pyproject.as_bytes()).unwrap();
        zip.finish().unwrap().into_inner().into()
    }

    #[test]
    fn stored_and_deflated_bundles_are_read() {
        for method in [
            zip::CompressionMethod::Stored,
            zip::CompressionMethod::Deflated,
        ] {
            let content = bundle(GOOD, method);
            let info = inspect(&content).unwrap();
            assert_eq!(
                (info.id.as_str(), info.version.as_str()),
                ("flower/digits", "1.0.0")
            );
            assert_eq!(info.hash, FabHash::of(&content));
        }
    }

    #[test]
    fn what_flower_requires_is_required() {
        let stored = |text: &str| inspect(&bundle(text, zip::CompressionMethod::Stored));
        for (from, to) in [
            ("name = \"digits\"", ""),
            ("version = \"1.0.0\"", "version = 1"),
            ("publisher = \"flower\"", ""),
            ("digits.server_app:app", "digits.server_app"),
            ("digits.client_app:app", ":app"),
            ("lr = 0.1", "lr = [1]"),
            ("lr = 0.1", "lr = 2020-01-01"),
            ("[project]", "[project"),
        ] {
            assert!(stored(GOOD).is_ok());
            assert!(stored(&GOOD.replace(from, to)).is_err(), "{from} -> {to}");
        }
        assert!(inspect(&Bytes::from_static(b"not a zip")).is_err());
        assert!(matches!(
            inspect(&vec![0; FAB_BYTES_MAX + 1].into()),
            Err(Refusal::TooLarge(_))
        ));
    }
}

//! Configurations as users write them: TOML values under keys that are joined by dots.
//!
//! Everything behaves as in Flower 1.22 (`common/config.py`), odd inputs included, because scripts
//! hand the same text to either program.

use std::fmt::Write;

use flwr_api::{Scalar, UserConfig};
use toml::{Table, Value};

/// A value that replaces no default.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Key '{0}' is not present in the main dictionary")]
pub struct UnknownKey(pub String);

/// A configuration that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// It is no TOML, or its pairs do not make any.
    #[error(
        "the configuration is not valid; give pairs like `key1=123 key2=false key3=\"text\"`, separated by blanks"
    )]
    Syntax(#[from] toml::de::Error),
    /// A value is of a kind that apps cannot be given.
    #[error("`{0}` is neither text, number nor truth value")]
    Value(String),
}

/// An app's configuration: its defaults, some of them replaced. Replacing one by a value of another
/// type is allowed.
///
/// # Errors
/// The first key that has no default.
pub fn fuse(mut defaults: UserConfig, overrides: UserConfig) -> Result<UserConfig, UnknownKey> {
    for (key, value) in overrides {
        match defaults.get_mut(&key) {
            Some(default) => *default = value,
            None => return Err(UnknownKey(key)),
        }
    }
    Ok(defaults)
}

/// Reads `key=value` pairs separated by blanks.
///
/// A key has no blanks; a value has none either unless it is in quotes. Each pair is a line of
/// TOML. Words that are no pairs are skipped, as Flower does. Ask [`names_file`] before.
///
/// # Errors
/// The pairs are no TOML, or a value is a list or a date.
pub fn parse_config_args(text: &str) -> Result<UserConfig, InvalidConfig> {
    let mut lines = String::new();
    for (key, value) in pairs(text) {
        // Writing to a text cannot fail.
        let _ = writeln!(lines, "{key} = {value}");
    }
    parse_config_toml(&lines)
}

/// Reads a file of TOML.
///
/// # Errors
/// The text is no TOML, or a value is a list or a date.
pub fn parse_config_toml(text: &str) -> Result<UserConfig, InvalidConfig> {
    flatten(text.parse()?).map_err(InvalidConfig::Value)
}

/// Whether a configuration on a command line is the path of a file of TOML.
#[must_use]
pub fn names_file(text: &str) -> bool {
    text.ends_with(".toml")
}

/// Joins the keys of nested tables by dots.
///
/// # Errors
/// The key whose value is not a scalar.
pub(crate) fn flatten(table: Table) -> Result<UserConfig, String> {
    let mut config = UserConfig::new();
    flatten_into(&mut config, "", table)?;
    Ok(config)
}

fn flatten_into(config: &mut UserConfig, parent: &str, table: Table) -> Result<(), String> {
    for (key, value) in table {
        let key = if parent.is_empty() {
            key
        } else {
            format!("{parent}.{key}")
        };
        let scalar = match value {
            Value::Array(_) | Value::Datetime(_) => return Err(key),
            Value::Boolean(value) => Scalar::Bool(value),
            Value::Float(value) => Scalar::Double(value),
            Value::Integer(value) => Scalar::Sint64(value),
            Value::String(value) => Scalar::String(value),
            Value::Table(table) => {
                flatten_into(config, &key, table)?;
                continue;
            }
        };
        config.insert(key, scalar);
    }
    Ok(())
}

/// The pairs in a text. Flower finds them with
/// `(\S+?)=('[^']*'|"[^"]*"|\S+)`, which leaves the rest of a word behind a closing quote for the
/// next pair.
fn pairs(text: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.find(is_blank).unwrap_or(rest.len()));
        rest = match equals_sign(word) {
            Some(at) => {
                let (key, from_value) = (&rest[..at], &rest[at + 1..]);
                let value = &from_value[..value_bytes(from_value)];
                pairs.push((key, value));
                &from_value[value.len()..]
            }
            None => behind,
        };
        rest = rest.trim_start_matches(is_blank);
    }
    pairs
}

/// The first equals sign that has something on both sides.
fn equals_sign(word: &str) -> Option<usize> {
    let mut signs = word.match_indices('=').map(|(at, _)| at);
    signs.find(|at| *at > 0 && at + 1 < word.len())
}

/// How much of a text is a value: up to the closing quote, if it begins with one that is closed, or
/// up to the next blank.
fn value_bytes(text: &str) -> usize {
    let quote = text.chars().next().filter(|c| ['\'', '"'].contains(c));
    let closing = quote.and_then(|quote| text[1..].find(quote));
    match closing {
        Some(at) => at + 2,
        None => text.find(is_blank).unwrap_or(text.len()),
    }
}

/// What Python's regular expressions call white space.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i64) -> Scalar {
        Scalar::Sint64(value)
    }

    fn text(value: &str) -> Scalar {
        Scalar::String(value.into())
    }

    fn config(pairs: &[(&str, Scalar)]) -> UserConfig {
        let owned = |(key, value): &(&str, Scalar)| ((*key).to_owned(), value.clone());
        pairs.iter().map(owned).collect()
    }

    fn check(args: &str, expected: &[(&str, Scalar)]) {
        let parsed = parse_config_args(args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        assert_eq!(parsed, config(expected), "{args:?}");
    }

    // What stands in the tests from here on was asked of `parse_config_args` of Flower 1.22.

    #[test]
    fn values_are_those_of_toml() {
        for (value, expected) in [
            ("1", int(1)),
            ("-1", int(-1)),
            ("+1", int(1)),
            ("-0", int(0)),
            ("0x10", int(16)),
            ("0o17", int(15)),
            ("0b11", int(3)),
            ("1_000", int(1000)),
            ("9223372036854775807", int(i64::MAX)),
            ("-9223372036854775808", int(i64::MIN)),
            ("1.5", Scalar::Double(1.5)),
            ("-1e3", Scalar::Double(-1000.0)),
            ("-0.0", Scalar::Double(-0.0)),
            ("inf", Scalar::Double(f64::INFINITY)),
            ("true", Scalar::Bool(true)),
            (r#""x""#, text("x")),
            ("'x'", text("x")),
            (r#""""#, text("")),
            ("''", text("")),
            (r#""x y""#, text("x y")),
            (r#""it's""#, text("it's")),
            (r#"'it"s'"#, text("it\"s")),
            (r#""tab\t""#, text("tab\t")),
            (r"'tab\t'", text(r"tab\t")),
            (r#""\u00e9""#, text("é")),
            (r#"" x.toml""#, text(" x.toml")),
            ("1#x", int(1)),
        ] {
            check(&format!("a={value}"), &[("a", expected)]);
        }
        let nan = parse_config_args("a=nan").unwrap();
        assert!(matches!(nan["a"], Scalar::Double(value) if value.is_nan()));
    }

    #[test]
    fn keys_are_those_of_toml_joined_by_dots() {
        check("a.b=1 a.c='x'", &[("a.b", int(1)), ("a.c", text("x"))]);
        check("a={b=1,c=2}", &[("a.b", int(1)), ("a.c", int(2))]);
        check("a={}", &[]);
        check("a-b_c=1", &[("a-b_c", int(1))]);
        check("--a=1", &[("--a", int(1))]);
        check("1=2", &[("1", int(2))]);
        check("'a'=1", &[("a", int(1))]);
        check(r#""a.b"=1"#, &[("a.b", int(1))]);
        check(r#"a."b.c"=1"#, &[("a.b.c", int(1))]);
    }

    #[test]
    fn blanks_and_closing_quotes_end_pairs() {
        let both = [("a", int(1)), ("b", int(2))];
        for args in [
            "a=1 b=2",
            "  a=1\t b=2  ",
            "a=1\nb=2",
            "a=1\u{a0}b=2",
            "a=1\u{1c}b=2",
        ] {
            check(args, &both);
        }
        check("a='x y' b=2", &[("a", text("x y")), ("b", int(2))]);
        check("a=\"x\"b=2", &[("a", text("x")), ("b", int(2))]);
        check("a='x''y'", &[("a", text("x"))]);
        check("a='''x'''", &[("a", text(""))]);
        check("a='\"' b='\"'", &[("a", text("\"")), ("b", text("\""))]);
    }

    #[test]
    fn words_that_are_no_pairs_are_skipped() {
        for args in [
            "",
            " ",
            "a = 1",
            "a= 1",
            "a =1",
            "a=",
            "=1",
            "junk",
            "a:1",
            "#a=1",
            "a=\u{a0}1",
        ] {
            check(args, &[]);
        }
        for args in ["junk a=1", "a=1 junk", "a=1 junk b", "#b=2 a=1"] {
            check(args, &[("a", int(1))]);
        }
    }

    #[test]
    fn pairs_that_are_no_toml_are_refused() {
        for args in [
            "a=1.",
            "a=.5",
            "a=True",
            "a=None",
            "a=x",
            "a=007",
            "a=1,b=2",
            "a=1, b=2",
            "a=1;b=2",
            "==1",
            "a==1",
            "a==",
            "a=b=c",
            "a.b=1 a=2",
            "a=1 a=2",
            "a='x",
            "a=\"x y",
            r#"a="it\"s""#,
            "a=[1, 2]",
            "\"a b\"=1",
            "[a]x=1",
            "ä=1",
            "a=\"x\ny\"",
            "x=1y=2",
            "a.=1",
            ".a=1",
            // Flower reads this one as infinity, and fails to send the next.
            "a=1e400",
            "a=9223372036854775808",
        ] {
            let refused = parse_config_args(args);
            assert!(
                matches!(refused, Err(InvalidConfig::Syntax(_))),
                "{args:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn lists_and_dates_are_refused_by_name() {
        for args in ["b=1 a=[1,2]", "a=2020-01-01", "a=07:32:00"] {
            let refused = parse_config_args(args).unwrap_err();
            let expected = "`a` is neither text, number nor truth value";
            assert_eq!(refused.to_string(), expected);
        }
    }

    #[test]
    fn files_are_read_as_they_are() {
        let parsed = parse_config_toml("a = 1\n[b]\nc.d = 'x y'\n\"\".e = 2\n").unwrap();
        let expected = [("a", int(1)), ("b.c.d", text("x y")), ("b..e", int(2))];
        assert_eq!(parsed, config(&expected));
        assert_eq!(
            parse_config_toml("[\"\"]\na = 1").unwrap(),
            config(&[("a", int(1))])
        );
        assert!(names_file("node.toml") && !names_file("a=\"node.toml\""));
    }

    #[test]
    fn overrides_replace_defaults_and_add_nothing() {
        let defaults = config(&[("a", int(1)), ("n.a", int(2))]);
        let overrides = config(&[("a", text("x"))]);
        let fused = fuse(defaults.clone(), overrides).unwrap();
        assert_eq!(fused, config(&[("a", text("x")), ("n.a", int(2))]));
        assert_eq!(fuse(defaults.clone(), UserConfig::new()).unwrap(), defaults);
        for key in ["b", "n", "a "] {
            let refused = fuse(defaults.clone(), config(&[(key, int(1))])).unwrap_err();
            let expected = format!("Key '{key}' is not present in the main dictionary");
            assert_eq!(refused.to_string(), expected);
        }
    }
}

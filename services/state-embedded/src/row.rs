//! Rows of any table: written with a checksum and read only if that fits.
//!
//! SQLite notices damage to the structure of its file, not to what it holds.

use std::hash::Hasher as _;
use std::sync::OnceLock;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use twox_hash::XxHash3_64;

/// A table, whose columns are those of its rows followed by `sum`.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The columns that a row is found by, which come first.
    pub(crate) key: &'static [&'static str],
    /// How many columns a row has, the key included and the sum not.
    pub(crate) columns: usize,
    /// The statement that writes a row, made once: all rows of a table have a column beyond the sum,
    /// or none has.
    pub(crate) insert: OnceLock<String>,
}

/// The values of a row, or of the key that comes first in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Values(Vec<Value>);

/// A value that is none of its column.
#[derive(Debug)]
pub(crate) struct Unfit;

impl Table {
    /// Writes a row, in place of the one with its key.
    pub(crate) fn put(&self, database: &Connection, row: &Values) -> rusqlite::Result<()> {
        self.put_with(database, row, None)
    }

    /// Writes a row that has a column beyond the sum.
    pub(crate) fn put_with(
        &self,
        database: &Connection,
        row: &Values,
        beyond: Option<Option<&[u8]>>,
    ) -> rusqlite::Result<()> {
        debug_assert_eq!(row.0.len(), self.columns, "{}", self.name);
        let sum = Value::Integer(row.sum());
        let statement = self.insert.get_or_init(|| {
            let marks = vec!["?"; self.columns + 1 + usize::from(beyond.is_some())].join(",");
            format!("INSERT OR REPLACE INTO {} VALUES ({marks})", self.name)
        });
        let values = row.0.iter().chain([&sum]).map(Bound::Value);
        let values = values.chain(beyond.map(Bound::Bytes));
        database
            .prepare_cached(statement)?
            .execute(params_from_iter(values))?;
        Ok(())
    }

    /// Removes the rows whose first columns are these.
    pub(crate) fn delete(&self, database: &Connection, key: &Values) -> rusqlite::Result<()> {
        let columns = &self.key[..key.0.len()];
        let fits: Vec<_> = columns
            .iter()
            .map(|column| format!("{column} = ?"))
            .collect();
        let statement = format!("DELETE FROM {} WHERE {}", self.name, fits.join(" AND "));
        database
            .prepare_cached(&statement)?
            .execute(params_from_iter(&key.0))?;
        Ok(())
    }

    /// Hands every row to `take`, which says whether it could read it. Returns how many rows are
    /// damaged.
    pub(crate) fn read(
        &self,
        database: &Connection,
        mut take: impl FnMut(Values) -> Result<(), Unfit>,
    ) -> rusqlite::Result<usize> {
        let mut statement = database.prepare(&format!("SELECT * FROM {}", self.name))?;
        let mut rows = statement.query([])?;
        let mut damaged = 0;
        while let Some(row) = rows.next()? {
            let values = (0..self.columns).map(|column| row.get(column));
            let is_read = match (values.collect(), row.get(self.columns)) {
                (Ok(values), Ok(sum)) => {
                    let values = Values(values);
                    values.sum() == sum && take(values).is_ok()
                }
                _ => false,
            };
            damaged += usize::from(!is_read);
        }
        Ok(damaged)
    }
}

impl Values {
    pub(crate) fn with(mut self, value: impl Into<Value>) -> Self {
        self.0.push(value.into());
        self
    }

    /// All 64 bits; SQLite's integers are signed.
    pub(crate) fn id(self, id: u64) -> Self {
        self.with(id.cast_signed())
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.with(text.to_owned())
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        self.with(bytes.to_vec())
    }

    /// A number. SQLite keeps NaN as nothing, and the sign of zero not at all.
    pub(crate) fn real(self, real: f64) -> Self {
        self.real_or_nothing(Some(real))
    }

    pub(crate) fn real_or_nothing(self, real: Option<f64>) -> Self {
        self.with(real.filter(|real| !real.is_nan()).map(|real| real + 0.0))
    }

    pub(crate) fn reader(self) -> Reader {
        Reader(self.0.into_iter())
    }

    /// 64 bits of XXH3 over the values and their kinds and lengths.
    pub(crate) fn sum(&self) -> i64 {
        let mut sum = XxHash3_64::new();
        for value in &self.0 {
            match value {
                Value::Null => sum.write(&[0]),
                Value::Integer(integer) => {
                    sum.write(&[1]);
                    sum.write(&integer.to_le_bytes());
                }
                Value::Real(real) => {
                    sum.write(&[2]);
                    sum.write(&real.to_bits().to_le_bytes());
                }
                Value::Text(text) => {
                    sum.write(&[3]);
                    sum.write(&(text.len() as u64).to_le_bytes());
                    sum.write(text.as_bytes());
                }
                Value::Blob(bytes) => {
                    sum.write(&[4]);
                    sum.write(&(bytes.len() as u64).to_le_bytes());
                    sum.write(bytes);
                }
            }
        }
        sum.finish().cast_signed()
    }
}

/// Takes the values of a row one after the other.
#[derive(Debug)]
pub(crate) struct Reader(std::vec::IntoIter<Value>);

impl Reader {
    pub(crate) fn next(&mut self) -> Result<Value, Unfit> {
        self.0.next().ok_or(Unfit)
    }

    pub(crate) fn integer(&mut self) -> Result<i64, Unfit> {
        match self.next()? {
            Value::Integer(integer) => Ok(integer),
            _ => Err(Unfit),
        }
    }

    pub(crate) fn id(&mut self) -> Result<u64, Unfit> {
        self.integer().map(i64::cast_unsigned)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Unfit> {
        match self.integer()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Unfit),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, Unfit> {
        self.text_or_nothing()?.ok_or(Unfit)
    }

    pub(crate) fn text_or_nothing(&mut self) -> Result<Option<String>, Unfit> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            _ => Err(Unfit),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Unfit> {
        self.bytes_or_nothing()?.ok_or(Unfit)
    }

    pub(crate) fn bytes_or_nothing(&mut self) -> Result<Option<Vec<u8>>, Unfit> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Blob(bytes) => Ok(Some(bytes)),
            _ => Err(Unfit),
        }
    }

    pub(crate) fn hash(&mut self) -> Result<[u8; 32], Unfit> {
        self.bytes()?.try_into().map_err(|_| Unfit)
    }

    pub(crate) fn real_or_nothing(&mut self) -> Result<Option<f64>, Unfit> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Real(real) => Ok(Some(real)),
            _ => Err(Unfit),
        }
    }

    pub(crate) fn real(&mut self) -> Result<f64, Unfit> {
        self.real_or_nothing()?.ok_or(Unfit)
    }
}

/// A value on its way into a statement, uncopied.
enum Bound<'a> {
    Value(&'a Value),
    Bytes(Option<&'a [u8]>),
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Value(value) => ValueRef::from(*value),
            Self::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Bytes(None) => ValueRef::Null,
        }))
    }
}

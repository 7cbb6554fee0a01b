//! The head of an object: `<type> <child ids joined by commas> <body length>\0`, checked while its
//! bytes come and in memory of a fixed size, however long it is.

use bytes::Bytes;

use crate::ids::ObjectId;

/// What is wrong with an object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There is no NUL byte.
    #[error("the head is not terminated")]
    Unterminated,
    /// The head has bytes that no field of a head can have.
    #[error("the head is not ASCII text")]
    NotText,
    /// The head has not three fields.
    #[error("the head has {0} fields instead of 3")]
    Fields(usize),
    /// The type is not one of Flower's.
    #[error("unknown object type")]
    Type,
    /// A child is not named by a hash.
    #[error("child {0} is not named by 64 hexadecimal digits")]
    Child(usize),
    /// The length field is not a number or not the number of body bytes.
    #[error("the body has {actual} bytes, not the number in the head")]
    Length {
        /// Bytes after the head.
        actual: u64,
    },
}

/// Checks an object's head against Flower's rules and returns its body.
///
/// # Errors
/// The first rule that is broken. Costs one pass over the head.
pub fn check(object: &Bytes) -> Result<Bytes, Malformed> {
    let mut head = HeadCheck::new();
    head.push(object);
    let body_at = head.finish(object.len() as u64)?;
    Ok(object.slice(body_at..))
}

/// Checks the head of an object that comes in pieces. What follows the head is ignored.
#[derive(Clone, Debug)]
pub struct HeadCheck {
    /// Bytes of the head so far, its NUL included.
    bytes: usize,
    is_terminated: bool,
    is_text: bool,
    /// How many fields have ended.
    fields: usize,
    /// How many children have ended.
    children: usize,
    /// The start of the type, the child or the length that has not ended.
    token: Vec<u8>,
    /// The first wrong type or child.
    wrong: Option<Malformed>,
    /// What the head says of the body.
    length: Option<u64>,
}

impl HeadCheck {
    /// Nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: 0,
            is_terminated: false,
            is_text: true,
            fields: 0,
            children: 0,
            token: Vec::with_capacity(TOKEN_BYTES_MAX + 1),
            wrong: None,
            length: None,
        }
    }

    /// Takes the next bytes of the object. Costs nothing once the head has ended.
    pub fn push(&mut self, piece: &[u8]) {
        if self.is_terminated {
            return;
        }
        let left = HEAD_BYTES_MAX - self.bytes;
        for &byte in piece.iter().take(left) {
            self.bytes += 1;
            match byte {
                0 => {
                    self.end_field();
                    self.is_terminated = true;
                    return;
                }
                b' ' => self.end_field(),
                b',' if self.fields == CHILDREN => self.end_child(),
                _ => {
                    self.is_text &= byte.is_ascii();
                    if self.token.len() <= TOKEN_BYTES_MAX {
                        self.token.push(byte);
                    }
                }
            }
        }
    }

    /// Judges an object of `object_bytes` in all, and returns where its body begins.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn finish(&self, object_bytes: u64) -> Result<usize, Malformed> {
        if !self.is_terminated {
            return Err(Malformed::Unterminated);
        }
        if !self.is_text {
            return Err(Malformed::NotText);
        }
        if self.fields != FIELDS {
            return Err(Malformed::Fields(self.fields));
        }
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let actual = object_bytes.saturating_sub(self.bytes as u64);
        if self.length != Some(actual) {
            return Err(Malformed::Length { actual });
        }
        Ok(self.bytes)
    }

    fn end_field(&mut self) {
        match self.fields {
            TYPE if !TYPES.contains(&self.token()) => self.note(Malformed::Type),
            CHILDREN if self.children > 0 || !self.token.is_empty() => self.end_child(),
            LENGTH => self.length = self.token().parse().ok(),
            _ => {}
        }
        self.token.clear();
        self.fields += 1;
    }

    fn end_child(&mut self) {
        if self.token().parse::<ObjectId>().is_err() {
            self.note(Malformed::Child(self.children));
        }
        self.token.clear();
        self.children += 1;
    }

    fn note(&mut self, wrong: Malformed) {
        self.wrong.get_or_insert(wrong);
    }

    /// The current token; nothing, which is no valid token, if it is too long or no text.
    fn token(&self) -> &str {
        if self.token.len() > TOKEN_BYTES_MAX {
            return "";
        }
        std::str::from_utf8(&self.token).unwrap_or_default()
    }
}

impl Default for HeadCheck {
    fn default() -> Self {
        Self::new()
    }
}

/// The types an object can have.
const TYPES: [&str; 7] = [
    "Array",
    "ArrayChunk",
    "ArrayRecord",
    "ConfigRecord",
    "Message",
    "MetricRecord",
    "RecordDict",
];

/// The places of the fields, and how many there are.
const TYPE: usize = 0;
const CHILDREN: usize = 1;
const LENGTH: usize = 2;
const FIELDS: usize = 3;

/// No head is longer: a record of half a million children fits.
const HEAD_BYTES_MAX: usize = 40 << 20;

/// No type, child or length is longer: a hash in hexadecimal digits.
const TOKEN_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: &str = "9399e94d744f08230a4c49e7b1e39010f368e001acaecffbd9efaddd1716d052";

    fn check_bytes(object: impl AsRef<[u8]>) -> Result<Bytes, Malformed> {
        check(&Bytes::copy_from_slice(object.as_ref()))
    }

    #[test]
    fn each_rule_is_named() {
        let empty_child = format!("Array {CHILD}, 0\0");
        let long_child = format!("Array {CHILD}0 0\0");
        // Cut off at the bound, the number would be right.
        let long_length = format!("ArrayChunk  {}30\0abc", "0".repeat(TOKEN_BYTES_MAX));
        let cases: [(&[u8], Malformed); 14] = [
            (b"", Malformed::Unterminated),
            (b"ArrayChunk  4", Malformed::Unterminated),
            (b"Array\xff  0\0", Malformed::NotText),
            (b"\0", Malformed::Fields(1)),
            (b"ArrayChunk 0\0", Malformed::Fields(2)),
            (b"ArrayChunk   0\0", Malformed::Fields(4)),
            (b"Tensor  0\0", Malformed::Type),
            (b"  0\0", Malformed::Type),
            (b"Array ab 0\0", Malformed::Child(0)),
            (b"Array , 0\0", Malformed::Child(0)),
            (empty_child.as_bytes(), Malformed::Child(1)),
            (long_child.as_bytes(), Malformed::Child(0)),
            (b"ArrayChunk  4\0abc", Malformed::Length { actual: 3 }),
            (long_length.as_bytes(), Malformed::Length { actual: 3 }),
        ];
        for (bytes, expected) in cases {
            assert_eq!(check_bytes(bytes), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn pieces_are_judged_like_the_whole() {
        let objects = [
            "ArrayChunk  3\0abc".to_owned(),
            format!("Array {CHILD} 2\0{{}}"),
            format!("RecordDict {CHILD},{CHILD} 2\0{{}}"),
            "ArrayChunk  4\0a\0c".to_owned(),
            "Tensor  3\0abc".to_owned(),
            "ArrayChunk  3 abc".to_owned(),
            format!("Array {CHILD},{} 0\0", &CHILD[1..]),
        ];
        for object in &objects {
            let whole = check_bytes(object).map(|body| object.len() - body.len());
            for at in 0..=object.len() {
                let mut head = HeadCheck::new();
                head.push(&object.as_bytes()[..at]);
                head.push(&object.as_bytes()[at..]);
                assert_eq!(
                    head.finish(object.len() as u64),
                    whole,
                    "{object:?} at {at}"
                );
            }
        }
    }

    #[test]
    fn an_endless_head_is_refused_and_not_kept() {
        for endless in ["a", ",", " "] {
            let piece = endless.repeat(1 << 20);
            let mut head = HeadCheck::new();
            for _ in 0..=HEAD_BYTES_MAX >> 20 {
                head.push(piece.as_bytes());
            }
            head.push(b"\0");
            assert_eq!(head.finish(50 << 20), Err(Malformed::Unterminated));
            assert_eq!(head.token.capacity(), TOKEN_BYTES_MAX + 1);
        }
    }
}

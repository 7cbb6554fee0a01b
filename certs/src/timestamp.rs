//! Calendar times as Flower writes and reads them: ISO 8601, with an offset, microseconds or none.
//!
//! Written by hand on top of `time`'s calendar because a timestamp is read on every Fleet call, and because Python
//! writes a fraction of exactly six digits or no fraction at all.

use time::{Date, Month, OffsetDateTime};

/// Reads an ISO 8601 time into Unix seconds.
///
/// Accepts `YYYY-MM-DD`, a `T` or a blank, `HH:MM:SS`, a fraction of up to nine digits or none, and an offset:
/// `Z`, `+HH:MM`, `+HHMM`, `+HH` or `+HH:MM:SS`, with either sign. The offset is mandatory.
///
/// # Errors
/// When the text has another form, no offset, or names a time that does not exist.
pub fn parse_iso(text: &[u8]) -> Result<f64, TimestampError> {
    let mut cursor = Cursor(text);
    let days = date(&mut cursor).ok_or(TimestampError::Malformed)?;
    let (seconds, nanos) = time_of_day(&mut cursor).ok_or(TimestampError::Malformed)?;
    if cursor.0.is_empty() {
        return Err(TimestampError::NoOffset);
    }
    let offset = offset(&mut cursor).ok_or(TimestampError::Malformed)?;
    let whole = days * DAY + seconds - offset;
    #[expect(
        clippy::cast_precision_loss,
        reason = "years have four digits, so this stays far below 2^53"
    )]
    let unix = whole as f64 + f64::from(nanos) / 1e9;
    Ok(unix)
}

/// Writes Unix seconds as Python's `datetime.isoformat()` does for UTC: `2025-09-15T08:30:00.123456+00:00`.
///
/// Rounded to microseconds, half to even; a zero fraction is left out altogether. Times outside the years 1 to 9999
/// become the nearest that Python can read, and NaN becomes 1970.
#[must_use]
pub fn format_iso(unix: f64) -> String {
    let unix = if unix.is_nan() { 0.0 } else { unix };
    let unix = unix.clamp(FIRST_SECOND, LAST_SECOND);
    let mut seconds = unix.floor();
    let mut micros = ((unix - seconds) * 1e6).round_ties_even();
    if micros >= 1e6 {
        micros = 0.0;
        seconds += 1.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped above to whole seconds of four-digit years and to 0..1e6"
    )]
    let (seconds, micros) = (seconds.min(LAST_SECOND) as i64, micros as u32);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.time().as_hms();
    if micros == 0 {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
    } else {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00")
    }
}

/// Why a text is not a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TimestampError {
    /// Not ISO 8601, or a time that does not exist.
    #[error("not an ISO 8601 time")]
    Malformed,
    /// A local time: nobody can say when that was.
    #[error("time without offset")]
    NoOffset,
}

/// Days since 1970.
fn date(cursor: &mut Cursor<'_>) -> Option<i64> {
    let year = cursor.number(4)?;
    cursor.expect(b'-')?;
    let month = cursor.number(2)?;
    cursor.expect(b'-')?;
    let day = cursor.number(2)?;
    if year == 0 {
        return None;
    }
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let day = u8::try_from(day).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, day).ok()?;
    Some(i64::from(date.to_julian_day()) - JULIAN_DAY_OF_1970)
}

/// Seconds of the day and nanoseconds of the second.
fn time_of_day(cursor: &mut Cursor<'_>) -> Option<(i64, u32)> {
    if !matches!(cursor.byte()?, b'T' | b't' | b' ') {
        return None;
    }
    let hour = cursor.number(2)?;
    cursor.expect(b':')?;
    let minute = cursor.number(2)?;
    cursor.expect(b':')?;
    let second = cursor.number(2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = if matches!(cursor.peek(), Some(b'.' | b',')) {
        cursor.byte()?;
        cursor.fraction()?
    } else {
        0
    };
    Some((i64::from(hour * 3600 + minute * 60 + second), nanos))
}

/// Seconds east of Greenwich; nothing may follow.
fn offset(cursor: &mut Cursor<'_>) -> Option<i64> {
    let sign = match cursor.byte()? {
        b'Z' | b'z' => return cursor.0.is_empty().then_some(0),
        b'+' => 1,
        b'-' => -1,
        _other => return None,
    };
    let hours = cursor.number(2)?;
    let (mut minutes, mut seconds) = (0, 0);
    if !cursor.0.is_empty() {
        let colons = cursor.peek() == Some(b':');
        if colons {
            cursor.byte()?;
        }
        minutes = cursor.number(2)?;
        if colons && cursor.peek() == Some(b':') {
            cursor.byte()?;
            seconds = cursor.number(2)?;
        }
    }
    let fits = hours < 24 && minutes < 60 && seconds < 60 && cursor.0.is_empty();
    fits.then(|| sign * i64::from(hours * 3600 + minutes * 60 + seconds))
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn expect(&mut self, want: u8) -> Option<()> {
        (self.byte()? == want).then_some(())
    }

    fn digit(&mut self) -> Option<u32> {
        let digit = char::from(self.peek()?).to_digit(10)?;
        self.byte()?;
        Some(digit)
    }

    fn number(&mut self, digits: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..digits {
            value = value * 10 + self.digit()?;
        }
        Some(value)
    }

    /// One to nine digits, as nanoseconds.
    fn fraction(&mut self) -> Option<u32> {
        let mut nanos = self.digit()?;
        let mut digits = 1;
        while let Some(digit) = self.digit() {
            digits += 1;
            if digits > 9 {
                return None;
            }
            nanos = nanos * 10 + digit;
        }
        Some(nanos * 10_u32.pow(9 - digits))
    }
}

const DAY: i64 = 86_400;
const JULIAN_DAY_OF_1970: i64 = 2_440_588;
/// 0001-01-01T00:00:00Z
const FIRST_SECOND: f64 = -62_135_596_800.0;
/// 9999-12-31T23:59:59Z
const LAST_SECOND: f64 = 253_402_300_799.0;

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: f64 = 1_757_925_000.0;

    #[test]
    fn accepted_forms() {
        let micros = NOON + 0.123_456;
        for (text, want) in [
            ("2025-09-15T08:30:00.123456+00:00", micros),
            ("2025-09-15T08:30:00.123456Z", micros),
            ("2025-09-15T08:30:00,123456+00:00", micros),
            ("2025-09-15 08:30:00.123456000+0000", micros),
            ("2025-09-15T08:30:00+00:00", NOON),
            ("2025-09-15T08:30:00z", NOON),
            ("2025-09-15T10:30:00+02:00", NOON),
            ("2025-09-15T10:30:00+02", NOON),
            ("2025-09-15T03:00:00-05:30", NOON),
            ("2025-09-15T10:30:30+02:00:30", NOON),
            ("2025-09-15T08:30:00.5+00:00", NOON + 0.5),
            ("2024-02-29T00:00:00Z", 1_709_164_800.0),
            ("1970-01-01T00:00:00Z", 0.0),
            ("1969-12-31T23:59:59.5Z", -0.5),
        ] {
            assert_eq!(parse_iso(text.as_bytes()), Ok(want), "{text}");
        }
    }

    #[test]
    fn refused_forms() {
        for text in [
            "",
            "now",
            "1757925000.0",
            "2025-09-15",
            "2025-09-15T08:30:00.+00:00",
            "2025-09-15T08:30:00.1234567890+00:00",
            "2025-09-15T08:30:00+00:00 ",
            " 2025-09-15T08:30:00+00:00",
            "2025-09-15T08:30:00+0",
            "2025-09-15T08:30:00+24:00",
            "2025-09-15T08:30:00UTC",
            "2025-09-15T08:30:60+00:00",
            "2025-09-15T24:00:00+00:00",
            "2025-02-29T08:30:00+00:00",
            "2025-13-01T08:30:00+00:00",
            "0000-01-01T08:30:00+00:00",
            "-025-09-15T08:30:00+00:00",
            "2025-09-15T08:30:00+\u{0661}0:00",
        ] {
            assert_eq!(
                parse_iso(text.as_bytes()),
                Err(TimestampError::Malformed),
                "{text}"
            );
        }
        for text in ["2025-09-15T08:30:00", "2025-09-15T08:30:00.123456"] {
            assert_eq!(
                parse_iso(text.as_bytes()),
                Err(TimestampError::NoOffset),
                "{text}"
            );
        }
    }

    #[test]
    fn written_as_python_writes() {
        for (unix, want) in [
            (NOON, "2025-09-15T08:30:00+00:00"),
            (NOON + 0.123_456, "2025-09-15T08:30:00.123456+00:00"),
            (NOON + 0.5, "2025-09-15T08:30:00.500000+00:00"),
            (NOON + 0.000_001, "2025-09-15T08:30:00.000001+00:00"),
            (NOON + 0.999_999_9, "2025-09-15T08:30:01+00:00"),
            (0.0, "1970-01-01T00:00:00+00:00"),
            (-0.5, "1969-12-31T23:59:59.500000+00:00"),
            (-1e300, "0001-01-01T00:00:00+00:00"),
            (f64::INFINITY, "9999-12-31T23:59:59+00:00"),
            (f64::NAN, "1970-01-01T00:00:00+00:00"),
        ] {
            assert_eq!(format_iso(unix), want);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for step in 0..1000_i32 {
            let unix = NOON + f64::from(step) * 86_399.987_654;
            let read = parse_iso(format_iso(unix).as_bytes()).unwrap();
            assert!((read - unix).abs() < 1e-6, "{unix} became {read}");
        }
    }
}

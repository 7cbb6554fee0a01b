//! A log line for people.

use std::fmt::{self, Write as _};

use flwr_state::{Clock as _, SystemClock};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use crate::telemetry::EXIT_TARGET;

/// `HH:MM:SS.mmm INFO  message key=value`, then the fields of the spans around, outermost first.
pub(crate) struct Human;

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Line::default();
        event.record(&mut line);
        write!(writer, "{} ", TimeOfDay(SystemClock.now().seconds()))?;
        let level = metadata.level();
        if writer.has_ansi_escapes() {
            write!(writer, "\x1b[{}m{level:<5}\x1b[0m ", colour(*level))?;
        } else {
            write!(writer, "{level:<5} ")?;
        }
        // Only our own words about why the program ends take more than a line.
        write_plain(&mut writer, &line.message, metadata.target() == EXIT_TARGET)?;
        writer.write_str(&line.fields)?;
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(fields)?;
            }
        }
        writeln!(writer)
    }
}

/// The fields of a span: ` key=value` each.
pub(crate) struct HumanFields;

impl<'writer> FormatFields<'writer> for HumanFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut line = Line::default();
        fields.record(&mut line);
        writer.write_str(&line.fields)
    }
}

/// The message and the other fields of an event, as text.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn add(&mut self, name: &str, value: &str) {
        // Where an event of the `log` crate comes from.
        if name.starts_with("log.") {
            return;
        }
        let needs_quotes =
            !value.starts_with('"') && (value.is_empty() || value.contains([' ', '=', '"']));
        // Writing to a String cannot fail.
        let _ok = write!(self.fields, " {}=", name.strip_prefix("r#").unwrap_or(name));
        let _ok = if needs_quotes {
            write!(self.fields, "{value:?}")
        } else {
            write_plain(&mut self.fields, value, false)
        };
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ok = write!(self.message, "{value:?}");
        } else {
            self.add(field.name(), &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.add(field.name(), value);
        }
    }
}

/// Writes text so that it stays on its line and cannot drive the terminal: peers choose some of it.
fn write_plain(out: &mut impl fmt::Write, text: &str, may_break_lines: bool) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() && !(may_break_lines && c == '\n') {
            write!(out, "{}", c.escape_default())?;
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}

/// A time of day, from Unix seconds.
struct TimeOfDay(f64);

impl fmt::Display for TimeOfDay {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the clock is never negative, and milliseconds since 1970 fit"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = (self.0 * 1_000.0) as u64 % 86_400_000;
        let (seconds, millis) = (millis / 1_000, millis % 1_000);
        write!(
            f,
            "{:02}:{:02}:{:02}.{millis:03}",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

const fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 91,
        Level::WARN => 93,
        Level::INFO => 92,
        Level::DEBUG | Level::TRACE => 94,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::{error, info, info_span};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(events: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let out = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || out.clone())
            .with_ansi(false)
            .fmt_fields(HumanFields)
            .event_format(Human);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_time_level_message_and_fields() {
        let lines = logged(|| {
            let span = info_span!("connection", peer = "127.0.0.1:5");
            let _in_span = span.enter();
            info!(run_id = 7, name = "a b", empty = "", "Run started");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (time, rest) = lines[0].split_at("HH:MM:SS.mmm".len());
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "00:00:00.000");
        assert_eq!(
            rest,
            " INFO  Run started run_id=7 name=\"a b\" empty=\"\" peer=127.0.0.1:5"
        );
    }

    #[test]
    fn what_peers_choose_stays_on_its_line() {
        let evil = "x\n00:00:00.000 INFO  forged\x1b[2J";
        let lines = logged(|| info!(%evil, ?evil, plain = "a\tb", "Refused {evil}"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains('\x1b'), "{lines:?}");
        assert!(lines[0].contains("Refused x\\n00:00"), "{lines:?}");
        assert!(lines[0].contains("plain=a\\tb"), "{lines:?}");
    }

    #[test]
    fn why_the_program_ends_may_take_several_lines() {
        assert_eq!(logged(|| error!(target: EXIT_TARGET, "one\ntwo")).len(), 2);
    }

    #[test]
    fn the_time_of_day_wraps_at_midnight() {
        assert_eq!(TimeOfDay(0.0).to_string(), "00:00:00.000");
        assert_eq!(TimeOfDay(1_757_925_000.123_4).to_string(), "08:30:00.123");
        assert_eq!(TimeOfDay(86_399.999_5).to_string(), "23:59:59.999");
    }
}

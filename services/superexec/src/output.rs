//! What apps write, line by line, on this process's own stdout and stderr.
//!
//! Each line stands behind the run it belongs to: `[run 42] text`. A line is cut where it is longer
//! than [`LINE_BYTES_MAX`]. An app never waits long for a slow reader of ours: lines that find no
//! room are dropped, and the next line that does says how many.

use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Writes the lines of all apps. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct Output {
    jobs: SyncSender<Job>,
}

/// Which of the two streams a line came from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// What stands before the lines of a process, once it is known: the run that it works for.
pub(crate) type Label = Arc<OnceLock<String>>;

enum Job {
    Write(Stream, Vec<u8>),
    Flush(oneshot::Sender<()>),
}

impl Output {
    /// Writes to the stdout and stderr of this process.
    ///
    /// # Errors
    /// When there is no thread to do it.
    pub fn stdio() -> io::Result<Self> {
        Self::to(io::stdout(), io::stderr())
    }

    /// Writes to `out` and `err`, on a thread of its own because writing can block.
    ///
    /// # Errors
    /// When there is no thread to do it.
    pub fn to(
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, received) = sync_channel(LINES_MAX);
        thread::Builder::new()
            .name("app-output".into())
            .spawn(move || write_all(&received, out, err))?;
        Ok(Self { jobs })
    }

    /// Waits until what was said so far is written, but not for long.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            // An end or a delay that cannot be helped.
            let _late = timeout(PATIENCE, flushed).await;
        }
    }

    /// Passes on everything that comes until the end.
    pub(crate) async fn forward(self, from: impl AsyncRead + Unpin, stream: Stream, label: Label) {
        let mut lines = Lines {
            output: self,
            stream,
            label,
            dropped: 0,
        };
        let mut from = BufReader::with_capacity(LINE_BYTES_MAX, from);
        let mut line = Vec::new();
        loop {
            let chunk = match from.fill_buf().await {
                Ok([]) | Err(_) => break,
                Ok(chunk) => chunk,
            };
            let room = LINE_BYTES_MAX - line.len();
            let chunk = &chunk[..chunk.len().min(room)];
            let (taken, is_whole) = match chunk.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (chunk.len(), chunk.len() == room),
            };
            line.extend_from_slice(&chunk[..taken]);
            from.consume(taken);
            if is_whole {
                lines.say(&line).await;
                line.clear();
            }
        }
        if !line.is_empty() || lines.dropped > 0 {
            lines.say(&line).await;
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

/// One stream of one app.
struct Lines {
    output: Output,
    stream: Stream,
    label: Label,
    dropped: u64,
}

impl Lines {
    async fn say(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut text = Vec::with_capacity(line.len() + 64);
        if self.dropped > 0 {
            let lost = format!("({} lines were dropped)", self.dropped);
            self.append(&mut text, lost.as_bytes());
        }
        self.append(&mut text, line);
        // Somebody who does not read is not waited for again and again.
        let tries = if self.dropped > 0 { 1 } else { TRIES };
        if self.send(text, tries).await {
            self.dropped = 0;
        } else {
            self.dropped += 1;
        }
    }

    fn append(&self, text: &mut Vec<u8>, line: &[u8]) {
        let label = self.label.get().map_or("no run yet", String::as_str);
        for part in [b"[", label.as_bytes(), b"] ", line] {
            text.extend_from_slice(part);
        }
        text.push(b'\n');
    }

    async fn send(&self, text: Vec<u8>, tries: u32) -> bool {
        let mut job = Job::Write(self.stream, text);
        for attempt in 0..tries {
            if attempt > 0 {
                sleep(PATIENCE / TRIES).await;
            }
            match self.output.jobs.try_send(job) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) => job = back,
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        false
    }
}

fn write_all(jobs: &Receiver<Job>, mut out: impl Write, mut err: impl Write) {
    let mut is_broken = false;
    for job in jobs {
        let written = match job {
            Job::Write(Stream::Out, text) => out.write_all(&text).and_then(|()| out.flush()),
            Job::Write(Stream::Err, text) => err.write_all(&text).and_then(|()| err.flush()),
            Job::Flush(done) => {
                // Whoever asked may have stopped waiting.
                done.send(()).ok();
                Ok(())
            }
        };
        // Apps go on without an audience.
        if let Err(error) = written
            && !is_broken
        {
            warn!(%error, "what apps write is lost");
            is_broken = true;
        }
    }
}

/// Longer lines are cut: enough for any traceback's line, little enough for many apps.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Lines that wait for a slow reader.
const LINES_MAX: usize = 1024;
/// How long an app waits for a slow reader before lines are dropped, and an end for the last lines.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u32 = 20;

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn label(run: u64) -> Label {
        Arc::new(OnceLock::from(format!("run {run}")))
    }

    #[tokio::test]
    async fn lines_name_their_run_and_keep_their_stream() {
        let (out, err) = (Written::default(), Written::default());
        let output = Output::to(out.clone(), err.clone()).unwrap();
        let forward = |text: &'static [u8], stream, label| {
            let output = output.clone();
            async move { output.forward(text, stream, label).await }
        };
        forward(b"one\n\ntwo", Stream::Out, label(7)).await;
        forward(b"bad \xff\r\n", Stream::Err, label(7)).await;
        forward(b"early\n", Stream::Out, Label::default()).await;
        output.flush().await;
        assert_eq!(
            out.text(),
            "[run 7] one\n[run 7] \n[run 7] two\n[no run yet] early\n"
        );
        assert_eq!(err.text(), "[run 7] bad \u{fffd}\r\n");
    }

    #[tokio::test]
    async fn long_lines_are_cut() {
        let out = Written::default();
        let output = Output::to(out.clone(), io::sink()).unwrap();
        let mut text = "x".repeat(2 * LINE_BYTES_MAX + 1);
        text.push('\n');
        output
            .clone()
            .forward(text.as_bytes(), Stream::Out, label(1))
            .await;
        output.flush().await;
        let lengths: Vec<_> = out
            .text()
            .lines()
            .map(|line| line.strip_prefix("[run 1] ").unwrap().len())
            .collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, 1]);
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_costs_lines_and_little_time() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::to(writer, io::sink()).unwrap();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let text = line.repeat(5000);
        let begun = tokio::time::Instant::now();
        output
            .clone()
            .forward(text.as_slice(), Stream::Out, label(1))
            .await;
        assert!(begun.elapsed() < 5 * PATIENCE, "{:?}", begun.elapsed());

        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        output
            .clone()
            .forward(&b"at last\n"[..], Stream::Out, label(1))
            .await;
        drop(output);
        let text = reading.join().unwrap();
        assert!(text.lines().count() >= LINES_MAX, "{text}");
        assert!(text.ends_with("[run 1] at last\n"), "{text}");
    }
}

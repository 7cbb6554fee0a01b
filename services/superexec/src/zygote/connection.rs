//! One zygote's process, and the socket to it.

use std::ffi::OsString;
use std::io::{self, IoSlice, PipeWriter, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::environment::Environment;
use crate::interpreter::Interpreter;
use crate::output::{Label, Output, Stream};
use crate::process::{Ended, Pipes};
use crate::start::pipe;

/// A zygote that answers.
#[derive(Debug)]
pub(super) struct Connection {
    child: Child,
    socket: UnixStream,
}

/// A process to fork: its arguments and its first three files.
#[derive(Debug)]
pub(crate) struct Fork {
    arguments: Vec<String>,
    files: [OwnedFd; 3],
    go: PipeWriter,
}

/// A process that was forked, and waits to be told to go.
#[derive(Debug)]
pub(super) struct Newborn {
    pub(super) pid: Pid,
    /// Readable once the process has ended.
    pub(super) pidfd: AsyncFd<OwnedFd>,
    pub(super) go: PipeWriter,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Request<'a> {
    Fork(&'a [String]),
    Reap(i32),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Pid(i32),
    Ready(bool),
    Refused(String),
    Status(Option<i32>),
}

impl Connection {
    /// Starts a zygote and waits until it has imported what `script` begins with.
    pub(super) async fn open(
        interpreter: &Interpreter,
        script: &Path,
        environment: &Environment,
        output: &Output,
    ) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let (stdout, stdout_writer) = pipe()?;
        let (stderr, stderr_writer) = pipe()?;
        let mut command = Command::new(&interpreter.program);
        environment.apply(&mut command);
        let child = command
            .args(&interpreter.argument)
            .args(["-c", SOURCE])
            .arg(script)
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout_writer)
            .stderr(stderr_writer)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        for (from, stream) in [(stdout, Stream::Out), (stderr, Stream::Err)] {
            let label = Label::from(std::sync::OnceLock::from("zygote".to_owned()));
            tokio::spawn(output.clone().forward(from, stream, label));
        }
        let mut connection = Self { child, socket };
        match timeout(IMPORTS, connection.receive()).await {
            Ok(Ok(Answer::Ready(true))) => Ok(connection),
            Ok(Ok(other)) => Err(unexpected(&other)),
            // It has said why on its stderr.
            Ok(Err(_closed)) => {
                let ended = connection.ended().await;
                Err(io::Error::other(format!("the imports failed ({ended})")))
            }
            Err(_elapsed) => Err(io::Error::other("the imports take too long")),
        }
    }

    /// Waits until the zygote is gone. Cancel safe.
    pub(super) async fn ended(&mut self) -> Ended {
        self.child.wait().await.map_or(Ended::Unknown, Ended::As)
    }

    /// Lets the zygote end.
    pub(super) async fn close(mut self) {
        drop(self.socket);
        // It is gone in any case.
        self.child.wait().await.ok();
    }

    /// Forks a process, or says why this zygote does not.
    pub(super) async fn fork(&mut self, fork: Fork) -> io::Result<Result<Newborn, String>> {
        let files: Vec<_> = fork.files.iter().map(AsFd::as_fd).collect();
        let answer = self.ask(&Request::Fork(&fork.arguments), &files).await?;
        let pid = match answer {
            Answer::Pid(pid) => Pid::from_raw(pid).ok_or_else(|| unexpected(&answer))?,
            Answer::Refused(why) => return Ok(Err(why)),
            other => return Err(unexpected(&other)),
        };
        // The id is the process's own until the zygote is asked to reap it.
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an OwnedFd stays what it is"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Ok(Newborn {
            pid,
            pidfd,
            go: fork.go,
        }))
    }

    /// Takes a process that has ended off the system's list.
    pub(super) async fn reap(&mut self, pid: Pid) -> io::Result<Ended> {
        let request = Request::Reap(pid.as_raw_nonzero().get());
        match self.ask(&request, &[]).await? {
            Answer::Status(Some(status)) => Ok(Ended::As(ExitStatus::from_raw(status))),
            Answer::Status(None) => Ok(Ended::Unknown),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&mut self, request: &Request<'_>, files: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let answered = async {
            self.send(request, files).await?;
            self.receive().await
        };
        timeout(ANSWER, answered)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn send(&mut self, request: &Request<'_>, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(request)?;
        let head = u32::try_from(text.len())
            .map_err(io::Error::other)?
            .to_le_bytes();
        let sending = self.socket.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let head = [IoSlice::new(&head)];
            Ok(sendmsg(
                &self.socket,
                &head,
                &mut control,
                SendFlags::NOSIGNAL,
            )?)
        });
        // The socket is empty but for one question at most, so there is room for the whole head.
        if sending.await? != head.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.socket.write_all(&text).await
    }

    async fn receive(&mut self) -> io::Result<Answer> {
        let length = self.socket.read_u32_le().await?;
        if length > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![0; length as usize];
        self.socket.read_exact(&mut text).await?;
        Ok(serde_json::from_slice(&text)?)
    }
}

impl Fork {
    /// Nothing where the system has no files left, or an argument is not text.
    pub(super) fn new(arguments: &[OsString], pipes: &Pipes) -> Option<Self> {
        let (wait, go) = io::pipe().ok()?;
        let arguments = arguments
            .iter()
            .map(|text| text.to_str().map(str::to_owned));
        Some(Self {
            arguments: arguments.collect::<Option<_>>()?,
            files: [
                pipes.stdout.try_clone().ok()?,
                pipes.stderr.try_clone().ok()?,
                wait.into(),
            ],
            go,
        })
    }
}

impl Newborn {
    /// Lets the process begin.
    pub(super) fn go(&mut self) {
        // If it is gone already, whoever watches it learns that.
        self.go.write_all(b"g").ok();
    }
}

fn unexpected(answer: &Answer) -> io::Error {
    io::Error::other(format!("the zygote answered {answer:?}"))
}

const SOURCE: &str = include_str!("../zygote.py");
/// How long imports may take, on a slow disk and a busy machine.
const IMPORTS: Duration = Duration::from_secs(120);
/// How long an answer may take: a fork takes milliseconds.
const ANSWER: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u32 = 64 << 10;

//! What storing and reading objects as files costs: `cargo run --release --example
//! object_files_speed [FOLDER]` puts and gets 1 GB in objects of 20 MiB, which come in one piece, as
//! over gRPC, and in pieces of 64 KiB, as over a stream.

#![expect(clippy::print_stdout, reason = "prints what it measured")]

use std::path::Path;

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_state::files::{Config, ObjectFiles, PutFile};
use flwr_transport::Body;
use futures_util::stream;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

type Object = (ObjectId, Bytes);
type Failure = Box<dyn std::error::Error>;

const OBJECT_BYTES: usize = 20 << 20;
const OBJECTS: u8 = 48;
const PIECE_BYTES: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let folder = std::env::args_os().nth(1);
    let folder = folder
        .as_deref()
        .map_or_else(|| temporary.path(), Path::new);
    let objects: Vec<_> = (0..OBJECTS).map(object).collect();
    measure("hash only", async {
        for (id, object) in &objects {
            assert_eq!(ObjectId::of(object), *id);
        }
        Ok(())
    })
    .await?;
    for durable in [false, true] {
        let config = Config {
            quota_bytes: 4 << 30,
            free_bytes_min: 0,
            durable,
        };
        let files = ObjectFiles::open(folder, config)?;
        files.clear().await?;
        // The first pages of a fresh machine cost extra.
        put(&files, &objects, OBJECT_BYTES).await?;
        for piece_bytes in [2 * OBJECT_BYTES, PIECE_BYTES] {
            files.clear().await?;
            let kib = piece_bytes.min(OBJECT_BYTES) >> 10;
            let what = format!("put in pieces of {kib} KiB, durable {durable}");
            measure(&what, put(&files, &objects, piece_bytes)).await?;
        }
        measure("get", get(&files, &objects)).await?;
    }
    Ok(())
}

async fn put(files: &ObjectFiles, objects: &[Object], piece_bytes: usize) -> Result<(), Failure> {
    for (id, object) in objects {
        let put = files.put(*id, body(object, piece_bytes)).await?;
        assert_eq!(put, PutFile::Stored);
    }
    Ok(())
}

async fn get(files: &ObjectFiles, objects: &[Object]) -> Result<(), Failure> {
    for (id, object) in objects {
        let mut body = files.get(*id).await?.ok_or("the object is gone")?;
        let mut bytes = 0;
        while let Some(piece) = body.next().await.transpose()? {
            bytes += piece.len();
        }
        assert_eq!(bytes, object.len());
    }
    Ok(())
}

/// A chunk that differs from all others.
fn object(number: u8) -> Object {
    let mut object = format!("ArrayChunk  {OBJECT_BYTES}\0").into_bytes();
    object.resize(object.len() + OBJECT_BYTES, number);
    (ObjectId::of(&object), object.into())
}

fn body(object: &Bytes, piece_bytes: usize) -> Body {
    let mut rest = object.clone();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        pieces.push(Ok(rest.split_to(piece_bytes.min(rest.len()))));
    }
    Body::from_stream(Some(object.len() as u64), stream::iter(pieces))
}

async fn measure(
    what: &str,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    work.await?;
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    let gigabytes = f64::from(OBJECTS) * OBJECT_BYTES as f64 / 1e9;
    println!(
        "{what:42} {:.2} CPU-s/GB {:.2} s/GB",
        cpu / gigabytes,
        wall / gigabytes
    );
    Ok(())
}

/// Of all threads, in the system too.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

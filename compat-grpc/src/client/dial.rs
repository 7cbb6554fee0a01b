//! From a name to a TCP connection: every address gets its chance, and a dead one costs a quarter of a second
//! (after RFC 8305).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};

/// How long an address may take before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("its name cannot be resolved: {0}")]
    Lookup(io::Error),
    #[error("its name has no address")]
    NoAddress,
    #[error("{addr} says {source}")]
    Refused { addr: SocketAddr, source: io::Error },
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// Connects to the first address of `host` that answers, within `patience`.
pub(super) async fn dial(
    host: &str,
    port: u16,
    patience: Duration,
) -> Result<TcpStream, DialError> {
    let dialled = tokio::time::timeout(patience, async {
        let found = lookup_host((host, port)).await.map_err(DialError::Lookup)?;
        race(alternating(found)).await
    });
    let tcp = dialled
        .await
        .map_err(|_| DialError::Silent(patience))
        .flatten()?;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "small packets will be delayed");
    }
    Ok(tcp)
}

async fn race(mut addrs: VecDeque<SocketAddr>) -> Result<TcpStream, DialError> {
    let mut racing = FuturesUnordered::new();
    let mut last = DialError::NoAddress;
    loop {
        if let Some(addr) = addrs.pop_front() {
            racing.push(async move { (addr, TcpStream::connect(addr).await) });
        }
        tokio::select! {
            biased;
            finished = racing.next() => match finished {
                Some((_, Ok(tcp))) => return Ok(tcp),
                Some((addr, Err(source))) => last = DialError::Refused { addr, source },
                None => return Err(last),
            },
            () = tokio::time::sleep(HEAD_START), if !addrs.is_empty() => {}
        }
    }
}

/// The two families in turn, beginning with the one that the resolver prefers.
fn alternating(found: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut found = found.peekable();
    let prefers_v6 = found.peek().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        found.partition(|addr| addr.is_ipv6() == prefers_v6);
    let mut addrs = VecDeque::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        addrs.extend(first.pop_front());
        addrs.extend(second.pop_front());
    }
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addrs = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let expected = addrs(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(alternating(found.into_iter()), expected);
        assert!(alternating(std::iter::empty()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_the_next_from_its_turn() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, nobody) = (listener.local_addr().unwrap(), free.local_addr().unwrap());
        drop(free);
        let tcp = race([nobody, here].into()).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), here);
        let error = race([nobody].into()).await.unwrap_err().to_string();
        assert!(error.contains(&nobody.to_string()), "{error}");
        let error = race(VecDeque::new()).await.unwrap_err();
        assert!(matches!(error, DialError::NoAddress));
    }
}

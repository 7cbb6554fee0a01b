//! A UDP socket whose datagrams are counted as they come: QUIC drops those that belong to no connection in silence.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use metrics::{Counter, counter};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Side, UdpPoller};

use crate::links;
use crate::metrics::DATAGRAMS;

/// A socket like the one inside.
pub(crate) struct CountedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    received: Counter,
}

impl CountedSocket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, side: Side) -> Self {
        Self {
            inner,
            received: counter!(DATAGRAMS, "side" => links::name(side)),
        }
    }
}

impl AsyncUdpSocket for CountedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(messages)) = &received {
            // The system hands over datagrams of one length together.
            let datagrams = meta.iter().take(*messages);
            let datagrams = datagrams.map(|meta| meta.len.div_ceil(meta.stride.max(1)).max(1));
            self.received.increment(datagrams.sum::<usize>() as u64);
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for CountedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

//! What a peer says that knows QUIC, and of this transport no more than the bytes.

use quinn::{Connection, RecvStream, SendStream};

/// A value as it stands on a stream.
pub(crate) fn frame(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    [&length.to_le_bytes()[..], value].concat()
}

/// What [`flwr_transport_quic`] calls a hello, by hand.
pub(crate) fn hello(protocol: &str, versions: (u8, u8)) -> Vec<u8> {
    let mut value = vec![u8::try_from(protocol.len()).unwrap()];
    value.extend(protocol.bytes());
    value.extend([versions.0, versions.1, 0x80, 0x80, 0x40, 0]);
    frame(&value)
}

/// Opens a stream that begins with `bytes`.
pub(crate) async fn say(connection: &Connection, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, receive)
}

/// Asks for something, and gives what is to be answered.
pub(crate) async fn ask(connection: &Connection, bytes: &[u8]) -> RecvStream {
    let (mut send, receive) = say(connection, bytes).await;
    send.finish().unwrap();
    receive
}

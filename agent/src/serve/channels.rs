//! What the messages of the `channel.k8s.io` subprotocols mean: the first byte is the channel, the rest is data. Pure.

use bytes::{BufMut as _, Bytes, BytesMut};

/// The version with a word for "this channel has ended".
pub(super) const V5: &str = "v5.channel.k8s.io";
/// The version before it: standard input cannot end.
pub(super) const V4: &str = "v4.channel.k8s.io";

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
/// Carries a Status at the end.
pub(super) const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// Standard input has ended.
    StdinEnd,
    /// The terminal's size, as JSON.
    Resize(Bytes),
    /// Nothing that means anything here.
    Nothing,
}

/// Reads a message of a client.
pub(super) fn read(protocol: &str, mut message: Bytes) -> Said {
    if message.is_empty() {
        return Said::Nothing;
    }
    let channel = message.split_to(1)[0];
    match channel {
        STDIN => Said::Stdin(message),
        RESIZE => Said::Resize(message),
        CLOSE if protocol == V5 && message.first() == Some(&STDIN) => Said::StdinEnd,
        _ => Said::Nothing,
    }
}

/// A message on a channel.
pub(super) fn write(channel: u8, data: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + data.len());
    message.put_u8(channel);
    message.put_slice(data);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let check = |protocol, message: &'static [u8], expected: Said| {
            assert_eq!(read(protocol, Bytes::from_static(message)), expected, "{protocol} {message:?}");
        };
        check(V5, b"\x00hello", Said::Stdin(Bytes::from_static(b"hello")));
        check(V4, b"\x00", Said::Stdin(Bytes::new()));
        check(V4, b"\x04{\"Width\":1}", Said::Resize(Bytes::from_static(b"{\"Width\":1}")));
        check(V5, b"\xff\x00", Said::StdinEnd);
        check(V5, b"\xff\x01", Said::Nothing);
        check(V5, b"\xff", Said::Nothing);
        check(V4, b"\xff\x00", Said::Nothing);
        check(V5, b"\x01x", Said::Nothing);
        check(V5, b"", Said::Nothing);
        assert_eq!(write(STDOUT, b"x"), Bytes::from_static(b"\x01x"));
        assert_eq!(write(ERROR, b""), Bytes::from_static(b"\x03"));
    }
}

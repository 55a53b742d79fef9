//! What stands around a message on TCP: its length in two bytes, big-endian, which do not count
//! themselves. No socket here.

/// Bytes of the length.
pub const LENGTH_BYTES: usize = 2;

/// The length of the message behind these bytes. Compare it with
/// [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX) before taking memory for it; some peers send zero
/// to keep a connection open.
pub fn length(bytes: [u8; LENGTH_BYTES]) -> usize {
    usize::from(u16::from_be_bytes(bytes))
}

/// A message with its length before it; `None` when that does not fit two bytes.
pub fn frame(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    Some([length.to_be_bytes().as_slice(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_two_bytes_of_length_and_the_message() {
        assert_eq!(frame(b"0800"), Some(b"\x00\x040800".to_vec()));
        assert_eq!(frame(b""), Some(vec![0, 0]));
        let longest = vec![b'0'; 65_535];
        assert_eq!(
            frame(&longest).map(|frame| frame[..2].to_vec()),
            Some(vec![255, 255])
        );
        assert_eq!(frame(&vec![b'0'; 65_536]), None);
    }

    #[test]
    fn a_length_is_big_endian() {
        assert_eq!(length([0, 0]), 0);
        assert_eq!(length([1, 2]), 258);
        assert_eq!(length([255, 255]), 65_535);
    }
}

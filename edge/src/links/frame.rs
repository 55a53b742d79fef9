//! Frames: a header of fixed size, then as many bytes as it says.
//!
//! Header, 28 bytes, numbers little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `STKL` |
//! | 4 | 1 | version |
//! | 5 | 1 | kind |
//! | 6 | 2 | zero |
//! | 8 | 8 | id: a reply has that of its request |
//! | 16 | 4 | length of the body |
//! | 20 | 4 | crc32c of the body |
//! | 24 | 4 | crc32c of the 24 bytes before |
//!
//! The header vouches for itself, so that a damaged length is never waited for.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The version of everything below.
pub(super) const VERSION: u8 = 1;
pub(super) const HEADER_BYTES: usize = 28;

const MAGIC: [u8; 4] = *b"STKL";
/// Read or written at a time: one step of progress, and what a buffer grows by at first.
const STEP_BYTES: usize = 64 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first of a connection, from who dialled: who it is, and whom it wants.
    Hello,
    /// The answer to a hello: it may begin.
    Welcome,
    /// The answer to a hello: it may not, and why; the connection ends.
    Refused,
    Request,
    Reply,
    /// Instead of a reply: nothing was begun, there is too much under way.
    Busy,
    /// Instead of a reply: it failed after it was begun, and why.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) length: u32,
    body_crc: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) body: Bytes,
}

/// Why there is no frame. The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("these are no frames of ours")]
    Magic,
    #[error("frames of version {0}, ours are of version {VERSION}")]
    Version(u8),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame arrived damaged")]
    Damaged,
    #[error("a frame of {bytes} bytes, {max} are allowed")]
    TooLarge { bytes: u64, max: usize },
    #[error("a frame stopped half way")]
    Stalled,
    #[error("the connection ended inside a frame")]
    Ended,
    #[error("{0}")]
    Io(#[from] io::Error),
}

// === impl Kind ===

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Welcome => 2,
            Self::Refused => 3,
            Self::Request => 4,
            Self::Reply => 5,
            Self::Busy => 6,
            Self::Failed => 7,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Hello),
            2 => Some(Self::Welcome),
            3 => Some(Self::Refused),
            4 => Some(Self::Request),
            5 => Some(Self::Reply),
            6 => Some(Self::Busy),
            7 => Some(Self::Failed),
            _ => None,
        }
    }
}

// === impl Header ===

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &[VERSION, self.kind.byte(), 0, 0],
            &self.id.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.body_crc.to_le_bytes(),
            &[0; 4],
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (at, byte) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *at = *byte;
        }
        if let Some((covered, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32c::crc32c(covered).to_le_bytes();
        }
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// When it is none of this version, or damaged.
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let mut at = bytes.as_slice();
        if take(&mut at)? != MAGIC {
            return Err(FrameError::Magic);
        }
        // Before the crc: another version may lay out the rest otherwise.
        let [version, kind, _, _] = take(&mut at)?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let id = u64::from_le_bytes(take(&mut at)?);
        let length = u32::from_le_bytes(take(&mut at)?);
        let body_crc = u32::from_le_bytes(take(&mut at)?);
        let crc = u32::from_le_bytes(take(&mut at)?);
        let covered = bytes.split_last_chunk::<4>().map(|(covered, _)| covered);
        if covered.map(crc32c::crc32c) != Some(crc) {
            return Err(FrameError::Damaged);
        }
        let kind = Kind::of(kind).ok_or(FrameError::Kind(kind))?;
        Ok(Self {
            kind,
            id,
            length,
            body_crc,
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(FrameError::Ended)?;
    *bytes = rest;
    Ok(*taken)
}

// === reading and writing ===

/// Reads the next header; `None` when the connection ended between two frames. The first byte may
/// take for ever, the others may not.
pub(super) async fn read_header<R: AsyncRead + Unpin>(
    io: &mut R,
    stall: Duration,
) -> Result<Option<Header>, FrameError> {
    let mut bytes = [0; HEADER_BYTES];
    let (first, rest) = bytes.split_at_mut(1);
    match io.read(first).await {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        // TLS that ended without a word of farewell: between two frames that is as good.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    match timeout(stall, io.read_exact(rest)).await {
        Ok(Ok(_)) => Header::decode(&bytes).map(Some),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Ended),
        Ok(Err(error)) => Err(error.into()),
        Err(_elapsed) => Err(FrameError::Stalled),
    }
}

/// The length of the body that a header announces.
///
/// # Errors
/// When that is more than is allowed.
pub(super) fn check_length(header: Header, max: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::TooLarge {
            bytes: u64::from(header.length),
            max,
        });
    }
    Ok(length)
}

/// Reads the body that a header announced. Memory is taken as bytes arrive, not as they are
/// announced.
pub(super) async fn read_body<R: AsyncRead + Unpin>(
    io: &mut R,
    header: Header,
    max: usize,
    stall: Duration,
) -> Result<Frame, FrameError> {
    let length = check_length(header, max)?;
    let mut body = BytesMut::new();
    while body.len() < length {
        let missing = length.saturating_sub(body.len());
        body.reserve(missing.min(STEP_BYTES));
        let mut rest = (&mut *io).take(u64::try_from(missing).unwrap_or(u64::MAX));
        match timeout(stall, rest.read_buf(&mut body)).await {
            Ok(Ok(0)) => return Err(FrameError::Ended),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_elapsed) => return Err(FrameError::Stalled),
        }
    }
    if crc32c::crc32c(&body) != header.body_crc {
        return Err(FrameError::Damaged);
    }
    Ok(Frame {
        kind: header.kind,
        id: header.id,
        body: body.freeze(),
    })
}

/// Writes a frame; each step of it must be taken within `stall`. Nothing is flushed.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    io: &mut W,
    frame: &Frame,
    stall: Duration,
) -> Result<(), FrameError> {
    let length = u32::try_from(frame.body.len()).map_err(|_| FrameError::TooLarge {
        bytes: u64::try_from(frame.body.len()).unwrap_or(u64::MAX),
        max: usize::try_from(u32::MAX).unwrap_or(usize::MAX),
    })?;
    let header = Header {
        kind: frame.kind,
        id: frame.id,
        length,
        body_crc: crc32c::crc32c(&frame.body),
    };
    within(stall, io.write_all(&header.encode())).await?;
    for step in frame.body.chunks(STEP_BYTES) {
        within(stall, io.write_all(step)).await?;
    }
    Ok(())
}

/// Flushes within `stall`.
pub(super) async fn flush<W: AsyncWrite + Unpin>(
    io: &mut W,
    stall: Duration,
) -> Result<(), FrameError> {
    within(stall, io.flush()).await
}

async fn within(
    stall: Duration,
    step: impl Future<Output = io::Result<()>>,
) -> Result<(), FrameError> {
    match timeout(stall, step).await {
        Ok(done) => Ok(done?),
        Err(_elapsed) => Err(FrameError::Stalled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    async fn bytes_of(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, frame, STALL).await.unwrap();
        bytes
    }

    async fn read(mut bytes: &[u8], max: usize) -> Result<Option<Frame>, FrameError> {
        match read_header(&mut bytes, STALL).await? {
            Some(header) => read_body(&mut bytes, header, max, STALL).await.map(Some),
            None => Ok(None),
        }
    }

    fn a_frame() -> Frame {
        Frame {
            kind: Kind::Request,
            id: 7,
            body: Bytes::from_static(b"append"),
        }
    }

    #[tokio::test]
    async fn a_frame_comes_back_as_it_was_written() {
        let mut frame = a_frame();
        for kind in 1..=7 {
            frame.kind = Kind::of(kind).unwrap();
            let bytes = bytes_of(&frame).await;
            assert_eq!(read(&bytes, 6).await.unwrap(), Some(frame.clone()));
        }
        assert!(read(&[], 6).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_bytes_of_version_1_stay_as_they_are() {
        let bytes = bytes_of(&a_frame()).await;
        let expected = [
            b'S', b'T', b'K', b'L', 1, 4, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0,
        ];
        assert_eq!(&bytes[..20], &expected);
        assert_eq!(bytes[20..24], crc32c::crc32c(b"append").to_le_bytes());
        assert_eq!(bytes[24..28], crc32c::crc32c(&bytes[..24]).to_le_bytes());
        assert_eq!(&bytes[28..], b"append");
    }

    #[tokio::test]
    async fn every_flipped_bit_and_every_cut_is_an_error() {
        let bytes = bytes_of(&a_frame()).await;
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged, 1 << 20).await.is_err(), "bit {bit}");
        }
        for cut in 1..bytes.len() {
            let ended = read(&bytes[..cut], 6).await.unwrap_err();
            assert!(matches!(ended, FrameError::Ended), "cut at {cut}: {ended}");
        }
    }

    #[tokio::test]
    async fn a_larger_frame_than_allowed_is_refused_by_its_header() {
        let bytes = bytes_of(&a_frame()).await;
        let refused = read(&bytes[..HEADER_BYTES], 5).await.unwrap_err();
        assert!(matches!(refused, FrameError::TooLarge { bytes: 6, max: 5 }));
    }

    #[tokio::test]
    async fn a_frame_that_stops_half_way_is_given_up() {
        const STALL: Duration = Duration::from_millis(1);
        let bytes = bytes_of(&a_frame()).await;
        for sent in [1, HEADER_BYTES + 2] {
            let (mut near, mut far) = tokio::io::duplex(1024);
            far.write_all(&bytes[..sent]).await.unwrap();
            let header = read_header(&mut near, STALL).await;
            let stalled = match header {
                Ok(Some(header)) => read_body(&mut near, header, 6, STALL).await.map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            assert!(matches!(stalled, Err(FrameError::Stalled)), "{sent} bytes");
        }
    }
}

//! Taking little-endian fields apart, and checksums.

use super::{BLOCK_BYTES, GROUP_BYTES_MAX, ZERO_BLOCK};

/// Reads fixed fields off the front of a slice; `None` past its end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

/// The checksum of `bytes` that belong at `offset` of a segment with `salt`.
pub(crate) fn checksum(salt: u32, offset: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &offset.to_le_bytes()), bytes)
}

/// Whether these are zeros, every one.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let zeros = |chunk: &[u8]| ZERO_BLOCK.get(..chunk.len()) == Some(chunk);
    bytes.chunks(BLOCK_BYTES).all(zeros)
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn slice(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// Nothing but zeros is left: what no checksum covers is nothing else.
    pub(crate) fn end(self) -> Option<()> {
        is_zero(self.0).then_some(())
    }

    /// Takes a checksum and compares it with that of everything in `whole` before it.
    pub(crate) fn verify(&mut self, whole: &[u8], salt: u32, offset: u64) -> Option<()> {
        let covered = whole.get(..whole.len().checked_sub(self.0.len())?)?;
        (self.u32()? == checksum(salt, offset, covered)).then_some(())
    }
}

/// Puts a group's name in its fixed field; `None` when it is too long.
pub(crate) fn put_group(out: &mut Vec<u8>, group: &str) -> Option<()> {
    let padding = GROUP_BYTES_MAX.checked_sub(group.len())?;
    out.extend_from_slice(&u32::try_from(group.len()).ok()?.to_le_bytes());
    out.extend_from_slice(group.as_bytes());
    out.resize(out.len().checked_add(padding)?, 0);
    Some(())
}

pub(crate) fn take_group(fields: &mut Fields<'_>) -> Option<String> {
    let bytes = usize::try_from(fields.u32()?).ok()?;
    let name = fields.slice(GROUP_BYTES_MAX)?.get(..bytes)?;
    String::from_utf8(name.to_vec()).ok()
}

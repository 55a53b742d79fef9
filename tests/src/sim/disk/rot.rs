//! Bytes at rest that are not what was written any more.
//!
//! Never the last write of a log: on one disk alone, a last write that is lost or torn cannot be told
//! from one that was never finished.

use super::super::scene::Dice;
use super::{File, Platter, is_segment, put};

/// How bytes are spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// One bit is another.
    Bit,
    /// A block that was written never got there.
    LostWrite,
    /// A block went to where another one was.
    MisdirectedWrite,
}

const BLOCK: usize = 4096;

impl Platter {
    /// Says which file it was.
    pub(super) fn rot(&mut self, rot: Rot) -> Option<String> {
        let mut dice = self.scene.fork();
        let spoilable = |name: &str| is_segment(name) || name == "state" || name == "snapshot";
        let files: Vec<(String, usize)> = self
            .names
            .iter()
            .filter(|(name, _)| spoilable(name))
            .map(|(name, file)| (name.clone(), *file))
            .collect();
        let last = files.iter().rev().find(|(name, _)| is_segment(name))?.1;
        let at = dice.below(u64::try_from(files.len()).ok()?);
        let (name, number) = files.get(usize::try_from(at).ok()?)?.clone();
        // Both slots of the state say the same: a write of one of them that is lost changes nothing.
        if name == "state" && rot != Rot::Bit {
            return None;
        }
        let file = self.files.get_mut(&number)?;
        let end = match file.written.last() {
            Some((from, _)) if number == last => *from,
            _ => file.written.iter().map(|(_, end)| *end).max()?,
        };
        let blocks = u64::try_from(end.div_euclid(BLOCK)).ok()?;
        if blocks == 0 {
            return None;
        }
        let block = |dice: &mut Dice| {
            let at = usize::try_from(dice.below(blocks)).unwrap_or(0);
            at.saturating_mul(BLOCK)
        };
        let into = block(&mut dice);
        let (at, bytes) = match rot {
            Rot::Bit => {
                let at = into.saturating_add(usize::try_from(dice.below(4096)).ok()?);
                let bit = u32::try_from(dice.below(8)).ok()?;
                (at, vec![*file.durable.get(at)? ^ 1_u8.checked_shl(bit)?])
            }
            Rot::LostWrite => (into, vec![0; BLOCK]),
            Rot::MisdirectedWrite => {
                let from = block(&mut dice);
                let bytes = file.durable.get(from..from.saturating_add(BLOCK))?;
                (into, bytes.to_vec())
            }
        };
        if !spoil(file, at, &bytes) {
            return None;
        }
        let place = u64::try_from(at).ok()?;
        self.scene.note("rot", &[self.node, place]);
        Some(name)
    }
}

/// False when nothing was different.
fn spoil(file: &mut File, at: usize, bytes: &[u8]) -> bool {
    let same = file.durable.get(at..at.saturating_add(bytes.len())) == Some(bytes);
    !same && put(&mut file.durable, at, bytes) && put(&mut file.seen, at, bytes)
}

//! Chance that a simulation can choose.

use std::cell::Cell;

use rand::RngCore;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Draws from this thread's seed if it was given one, else from the machine.
pub(crate) enum Chance {
    Seeded,
    Machine(rand::rngs::ThreadRng),
}

/// From now on, the elections of groups on this thread follow from `seed`; `None`: from the machine.
pub fn seed_elections(seed: Option<u64>) {
    SEED.set(seed);
}

// === impl Chance ===

impl Chance {
    pub(crate) fn of_this_thread() -> Self {
        if SEED.get().is_some() {
            Self::Seeded
        } else {
            Self::Machine(rand::thread_rng())
        }
    }
}

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next_u64() >> 32).unwrap_or_default()
    }

    fn next_u64(&mut self) -> u64 {
        match self {
            Self::Machine(chance) => chance.next_u64(),
            Self::Seeded => {
                // SplitMix64.
                let state = SEED.get().unwrap_or_default();
                let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                SEED.set(Some(state));
                let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                mixed ^ (mixed >> 31)
            }
        }
    }

    fn fill_bytes(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(8) {
            let drawn = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(drawn.get(..chunk.len()).unwrap_or_default());
        }
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(into);
        Ok(())
    }
}

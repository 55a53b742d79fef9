//! Bounds of links: nothing grows, nothing waits for ever.

use std::time::Duration;

use super::StartError;
use super::hello::Lane;

/// Bounds of links. `frame_bytes_max` and `quick_bytes_max` are the same on all nodes of a group: a
/// larger frame than its receiver allows ends the connection. Of the others each node has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Bytes of a request or a reply; also of all requests under way to one peer on the bulk lane.
    pub frame_bytes_max: usize,
    /// Bytes of a request on the quick lane; larger ones take the bulk lane.
    pub quick_bytes_max: usize,
    /// Bytes of all requests under way to one peer on the quick lane.
    pub quick_window_bytes: usize,
    /// Calls under way to, and requests under way of, one peer on each lane.
    pub calls_max: usize,
    /// From dialling or accepting to the end of the hello.
    pub connect_max: Duration,
    /// A frame that was begun makes no progress for so long: the connection ends.
    pub stall_max: Duration,
    /// Three calls in a row or more without a reply, and nothing else heard for so long: the
    /// connection ends.
    pub silence_max: Duration,
    /// A peer is not dialled for so long after one try in vain.
    pub rest_min: Duration,
    /// After many tries, for so long.
    pub rest_max: Duration,
    /// A connection that nobody used for so long ends.
    pub idle_after: Duration,
    /// Peers known at once, and nodes that call.
    pub peers_max: usize,
    /// Connections accepted whose hello has not been heard; past it, others wait to be accepted.
    pub strangers_max: usize,
    /// The certificates' files are looked at this often.
    pub certificates_every: Duration,
}

// === impl LinkLimits ===

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 256 * 1024 * 1024,
            quick_bytes_max: 256 * 1024,
            quick_window_bytes: 8 * 1024 * 1024,
            calls_max: 64,
            connect_max: Duration::from_secs(1),
            stall_max: Duration::from_secs(5),
            silence_max: Duration::from_secs(1),
            rest_min: Duration::from_millis(50),
            rest_max: Duration::from_millis(1_000),
            idle_after: Duration::from_secs(300),
            peers_max: 64,
            strangers_max: 64,
            certificates_every: Duration::from_secs(5),
        }
    }
}

impl LinkLimits {
    pub(super) fn check(&self) -> Result<(), StartError> {
        let within = |ok: bool, what| ok.then_some(()).ok_or(StartError::Limits(what));
        let counts = [self.calls_max, self.peers_max, self.strangers_max];
        within(
            counts.iter().all(|count| (1..=65_536).contains(count)),
            "calls, peers and strangers are from 1 to 65,536",
        )?;
        within(
            u32::try_from(self.frame_bytes_max.max(self.quick_window_bytes)).is_ok(),
            "a frame and a window have fewer than 4 GiB",
        )?;
        within(
            (1..=self.quick_window_bytes).contains(&self.quick_bytes_max)
                && self.quick_bytes_max <= self.frame_bytes_max,
            "a quick request fits the quick window and a frame",
        )?;
        within(
            !self.certificates_every.is_zero() && !self.idle_after.is_zero(),
            "certificates are not looked at, nor connections ended, all the time",
        )
    }

    /// Bytes of all requests under way to or of one peer on a lane.
    pub(super) const fn window_bytes(&self, lane: Lane) -> usize {
        match lane {
            Lane::Quick => self.quick_window_bytes,
            Lane::Bulk => self.frame_bytes_max,
        }
    }

    /// Bytes of one request on a lane.
    pub(super) const fn request_bytes_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Quick => self.quick_bytes_max,
            Lane::Bulk => self.frame_bytes_max,
        }
    }
}

//! The trip cache, as it looks while a fault is played on it.

use std::sync::Arc;

use standin_core::BoxFuture;
use standin_core::clock::Timestamp;
use standin_core::id::{ShopperId, TripId};
use standin_core::trip::{Approval, Position, TripSheet};
use standin_core::trip_cache::hindsight::Lapses;
use standin_core::trip_cache::{CacheError, Look, Put, TripCache};

use super::fault::{Caller, Fate, Port};
use super::{HANG_MAX, Plays};

/// See the module.
pub(super) struct PlayedCache {
    pub(super) inner: Arc<dyn TripCache>,
    pub(super) plays: Arc<Plays>,
    /// Who uses it.
    pub(super) caller: Caller,
}

macro_rules! cache_calls {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        impl TripCache for PlayedCache {
            $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, Result<$out, CacheError>> {
                let Some((play, fate)) = self.plays.hit(Port::TripCache, self.caller) else {
                    return self.inner.$name($($arg),*);
                };
                Box::pin(async move {
                    match fate {
                        Fate::NobodyThere => {
                            return Err(CacheError::Unreachable("a drill plays it".to_owned()));
                        }
                        Fate::Refused => {
                            return Err(CacheError::Refused("a drill plays it".to_owned()));
                        }
                        Fate::Late(delay) => {
                            play.over_within(delay).await;
                        }
                        Fate::Hangs => {
                            if !play.over_within(HANG_MAX).await {
                                return Err(CacheError::Timeout);
                            }
                        }
                    }
                    self.inner.$name($($arg),*).await
                })
            })*

            fn home_epoch(&self) -> u64 {
                self.inner.home_epoch()
            }

            fn require_home_epoch(&self, epoch: u64) {
                self.inner.require_home_epoch(epoch);
            }

            // A cache that looks broken shows nothing, and so nothing less than before.
            fn check(&self) -> BoxFuture<'_, Lapses> {
                match self.plays.hit(Port::TripCache, self.caller) {
                    Some(_) => Box::pin(async { Lapses::default() }),
                    None => self.inner.check(),
                }
            }

            fn troubles(&self) -> Vec<(&'static str, u64)> {
                self.inner.troubles()
            }
        }
    };
}

cache_calls! {
    look(shopper: ShopperId) -> Look;
    sheet(trip: TripId) -> Option<TripSheet>;
    put(sheet: TripSheet) -> Put;
    approve(trip: TripId, approval: Approval) -> ();
    moved(shopper: ShopperId, position: Position) -> ();
    close(shopper: ShopperId, trip: TripId) -> ();
    beat(now: Timestamp) -> ();
}

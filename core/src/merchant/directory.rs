//! All stores, indexed for resolution.

mod index;

use super::ids::MerchantIds;
use super::near::{Near, Numbered, Text};
use super::{CANDIDATES_MAX, MerchantId, NetworkId, Resolution, Store};
use crate::authorization::Merchant;
use crate::id::StoreId;
use index::{Index, Sought};

/// Millionths of a degree that no city extends.
const CITY_E6_MAX: u32 = 750_000;

/// Every store, and the ways to find one from what a bank wrote.
///
/// Resolution goes from sure to less sure: the network's ids; the same text; whatever stands out by
/// store number, name and place. Whatever finds more than one store says
/// [`Resolution::Ambiguous`].
#[derive(Debug)]
pub struct StoreDirectory {
    /// By id.
    stores: Vec<Store>,
    index: Index,
    ids: MerchantIds,
}

// === impl StoreDirectory ===

impl StoreDirectory {
    /// Indexes the stores. Of two with the same id the later holds; one whose name has no letter and
    /// no digit is known by id but never resolved to.
    pub fn new(stores: Vec<Store>) -> Self {
        Self::with_ids(stores, Vec::new())
    }

    /// The same with what networks call them. Of two ids with the same key the later holds.
    pub fn with_ids(mut stores: Vec<Store>, ids: Vec<MerchantId>) -> Self {
        stores.sort_by_key(|store| store.id);
        stores.dedup_by(|later, kept| {
            let same = later.id == kept.id;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        stores.shrink_to_fit();
        let index = Index::new(&stores);
        Self {
            stores,
            index,
            ids: MerchantIds::new(ids),
        }
    }

    /// The store with this id.
    pub fn get(&self, id: StoreId) -> Option<&Store> {
        self.place(id).and_then(|at| self.at(at))
    }

    /// Every store, by id.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.stores.iter()
    }

    /// What networks call them, by key.
    pub fn merchant_ids(&self) -> impl Iterator<Item = &MerchantId> {
        self.ids.iter()
    }

    /// How many stores there are.
    pub fn len(&self) -> usize {
        self.stores.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stores.is_empty()
    }

    /// Which store the bank means, by its text alone.
    pub fn resolve(&self, merchant: &Merchant) -> Resolution {
        self.resolve_text(merchant, None)
    }

    /// Which store the bank means: by the network's ids where one of them is known, else by its
    /// text.
    ///
    /// The id of a known terminal names its store; so does a merchant id with one store. Where a
    /// merchant id has several stores, the text chooses among them, and [`Resolution::Ambiguous`]
    /// is said where it cannot. An id that leads to a store we do not know says nothing.
    pub fn resolve_ids(
        &self,
        network_id: Option<&str>,
        terminal: Option<&str>,
        merchant: &Merchant,
    ) -> Resolution {
        let read = |text: Option<&str>| text.and_then(|text| text.parse::<NetworkId>().ok());
        let Some(network_id) = read(network_id) else {
            return self.resolve(merchant);
        };
        if let Some(terminal) = read(terminal)
            && let Some(store) = self.ids.by_terminal(&network_id, &terminal)
        {
            return match self.get(store) {
                Some(store) => Resolution::Store(store.id),
                None => self.resolve(merchant),
            };
        }
        let named = self.ids.stores(&network_id);
        let known: Option<Vec<u32>> = named.iter().map(|store| self.place(*store)).collect();
        match (named.as_slice(), known) {
            ([], _) | (_, None) => self.resolve(merchant),
            ([one], Some(_)) => Resolution::Store(*one),
            (_, Some(among)) => match self.resolve_text(merchant, Some(&among)) {
                Resolution::Unknown => Resolution::Ambiguous,
                found @ (Resolution::Store(_) | Resolution::Ambiguous) => found,
            },
        }
    }

    /// Among some stores (by place, in order) or all.
    fn resolve_text(&self, merchant: &Merchant, among: Option<&[u32]>) -> Resolution {
        let text = Text::read(&merchant.name, &merchant.address);
        if text.name.full.is_empty() {
            return Resolution::Unknown;
        }
        let here = |at: &u32| among.is_none_or(|among| among.binary_search(at).is_ok());
        let key = text.key();
        let mut same = self.index.with_text(&key).filter(here).filter(|at| {
            let store = self.at(*at);
            store.is_some_and(|store| Text::read(&store.name, &store.address).key() == key)
        });
        match (same.next(), same.next()) {
            (Some(one), None) => return self.answer(one),
            (Some(_), Some(_)) => return Resolution::Ambiguous,
            (None, _) => {}
        }
        let sought = self.index.sought(&text);
        let candidates = match among {
            Some(among) => Some(self.index.of(&sought, among)),
            None => self.index.near(&sought),
        };
        match candidates {
            Some(candidates) if candidates.len() <= CANDIDATES_MAX => {
                self.nearest(&sought, &candidates)
            }
            Some(_) | None => Resolution::Ambiguous,
        }
    }

    /// The candidate that stands out, if one does.
    fn nearest(&self, sought: &Sought<'_>, candidates: &[u32]) -> Resolution {
        let near = candidates.iter().filter_map(|at| self.near(sought, *at));
        let (near, possible): (Vec<Near>, Vec<Near>) = near
            .filter(|near| near.is_enough() || near.is_possible())
            .partition(Near::is_enough);
        let beats_all = |best: &&Near| {
            let rivals = near.iter().filter(|rival| rival.at != best.at);
            rivals.into_iter().all(|rival| best.beats(rival))
        };
        match near.iter().find(beats_all) {
            // A store of that name stands we know not where: perhaps there.
            Some(best)
                if best.is_by_area()
                    && best.number != Numbered::Same
                    && possible
                        .iter()
                        .any(|other| self.may_be_near(best.at, other.at)) =>
            {
                Resolution::Ambiguous
            }
            Some(best) => self.answer(best.at),
            None if near.is_empty() && possible.is_empty() => Resolution::Unknown,
            None => Resolution::Ambiguous,
        }
    }

    fn near(&self, sought: &Sought<'_>, at: u32) -> Option<Near> {
        let store = self.at(at)?;
        let known = Text::read(&store.name, &store.address);
        let number = self.index.numbered(sought, at)?;
        let place = sought.text.placed(&known.name, &known.address)?;
        let named = sought.text.named(&known.name.key);
        let name = sought
            .text
            .named_at(named, &known.name, &known.address, number)?;
        Some(Near {
            at,
            number,
            name,
            place,
        })
    }

    /// Whether two stores may stand in one city, by their positions: 0, 0 is where nobody knows.
    fn may_be_near(&self, one: u32, other: u32) -> bool {
        let (Some(one), Some(other)) = (self.at(one), self.at(other)) else {
            return true;
        };
        let known = |store: &Store| (store.lat_e6, store.lon_e6) != (0, 0);
        let near = one.lat_e6.abs_diff(other.lat_e6) <= CITY_E6_MAX
            && one.lon_e6.abs_diff(other.lon_e6) <= CITY_E6_MAX;
        near || !known(one) || !known(other)
    }

    fn place(&self, id: StoreId) -> Option<u32> {
        let found = self.stores.binary_search_by_key(&id, |store| store.id);
        found.ok().and_then(|at| u32::try_from(at).ok())
    }

    fn at(&self, at: u32) -> Option<&Store> {
        usize::try_from(at).ok().and_then(|at| self.stores.get(at))
    }

    fn answer(&self, at: u32) -> Resolution {
        self.at(at)
            .map_or(Resolution::Unknown, |store| Resolution::Store(store.id))
    }
}

//! Money that moved, by the bank's word.

use standin_core::entry::{LogPosition, Settlement, SettlementKind};
use standin_core::ledger::{Booked, BookedCounts, DrainStep, SettlementRow};
use standin_core::money::{Currency, Money};

use super::{World, approve, at, shopper, step, uuid};

fn moved(kind: SettlementKind) -> Settlement {
    Settlement {
        id: uuid(),
        bank: "first-bank".parse().unwrap(),
        kind,
        transaction_id: None,
        shopper: Some(shopper()),
        amount: Money::from_minor(1_234, Currency::USD),
        at: at(7),
    }
}

fn settling(log: uuid::Uuid, to: u64, settlements: &[Settlement]) -> DrainStep {
    let rows = (0_u32..)
        .zip(settlements)
        .map(|(slot, settlement)| SettlementRow {
            settlement: settlement.clone(),
            at: LogPosition { index: to, slot },
        });
    DrainStep {
        settlements: rows.collect(),
        ..step(log, to, Vec::new())
    }
}

async fn book(world: &World, step: DrainStep) -> BookedCounts {
    match world.ledger.book(step).await.unwrap() {
        Booked::Moved(counts) => counts,
        Booked::Raced { cursor } => panic!("the cursor is at {cursor}"),
    }
}

/// Those of these that the ledger has, by id.
async fn kept(world: &World, of: &[Settlement]) -> Vec<Settlement> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = world.ledger.settlements(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        all.extend(page);
    }
    assert!(all.is_sorted_by_key(|one| one.id));
    all.retain(|one| of.iter().any(|other| other.id == one.id));
    all
}

pub(super) async fn money_that_moved_is_kept_once(world: World) {
    let sheet = world.trip().await;
    let payment = approve(&sheet, 500, 1_000).transaction_id;
    let mut all = vec![
        moved(SettlementKind::ForcePost),
        moved(SettlementKind::Refund),
        Settlement {
            transaction_id: Some(payment),
            shopper: None,
            ..moved(SettlementKind::Capture)
        },
    ];
    let log = uuid();
    let first = book(&world, settling(log, 1, &all)).await;
    // Told again, by another region and later: it is the same.
    let later: Vec<_> = all
        .iter()
        .map(|one| Settlement {
            at: at(99),
            ..one.clone()
        })
        .collect();
    let again = book(&world, settling(uuid(), 1, &later)).await;
    assert_eq!((first.conflicts, again.conflicts), (0, 0));
    all.sort_by_key(|one| one.id);
    assert_eq!(kept(&world, &all).await, all);
}

pub(super) async fn another_movement_under_the_same_id_is_a_conflict(world: World) {
    let one = moved(SettlementKind::Capture);
    let other = Settlement {
        amount: Money::from_minor(1_235, Currency::USD),
        ..one.clone()
    };
    let log = uuid();
    let both = [one.clone(), other];
    assert_eq!(book(&world, settling(log, 1, &both)).await.conflicts, 1);
    assert_eq!(kept(&world, &both).await, [one]);
    let conflicts = world.ledger.conflicts(10_000).await.unwrap();
    let found: Vec<_> = conflicts.iter().filter(|row| row.log == log).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].cause, "other_settlement");
    assert_eq!(found[0].outcome["amount"]["minor"], 1_235);
}

//! The table of cards, and payments that name one.

use standin_core::answer::{Reason, Verdict};
use standin_core::authorization::Particulars;
use standin_core::entry::Proposal;
use standin_core::id::ShopperId;
use standin_core::ledger::{AuthorizationState, Card, CardHolder, HoldReply};
use standin_core::money::{Currency, Money};

use super::{World, answer, approve, declined, number, outcome, shopper, step};

/// A card of a bank of this case's own, in which nobody else writes.
fn card(bank: &str, token: &str) -> Card {
    Card {
        bank: bank.parse().unwrap(),
        token: token.to_owned(),
    }
}

async fn hold(world: &World, proposal: &Proposal) -> HoldReply {
    let held = world.ledger.hold(vec![proposal.clone()]).await;
    held.unwrap().pop().unwrap()
}

fn bank() -> String {
    format!("cards-{}", number())
}

pub(super) async fn a_card_is_given_and_taken(world: World) {
    let (ledger, bank) = (&world.ledger, bank());
    let card = card(&bank, "ic_1");
    let holder = async || ledger.card_holder(card.clone()).await.unwrap();
    assert_eq!(holder().await, None);
    let (one, other) = (shopper(), shopper());
    for shopper in [Some(one), Some(one), Some(other), None, None, Some(one)] {
        ledger.set_card(card.clone(), shopper).await.unwrap();
        assert_eq!(holder().await, shopper);
    }
    // The same token of another bank is another card.
    let others = self::card(&self::bank(), "ic_1");
    assert_eq!(ledger.card_holder(others).await.unwrap(), None);
}

pub(super) async fn cards_are_read_in_order_and_in_pages(world: World) {
    let (ledger, bank) = (&world.ledger, bank());
    let carrier = shopper();
    let mut all = Vec::new();
    // Text is ordered by its bytes, whatever a locale thinks of it.
    for token in ["B", "a", "b", "\u{e9}", "ic_1", "ic-1", "ic 1"] {
        let card = card(&bank, token);
        ledger.set_card(card.clone(), Some(carrier)).await.unwrap();
        all.push(CardHolder {
            card,
            shopper: carrier,
        });
    }
    all.sort_by(|one, other| one.card.cmp(&other.card));
    for limit in [1, 2, 3, 100] {
        let mut read = Vec::new();
        let mut after = Some(card(&bank, "\u{1}"));
        loop {
            let page = ledger.cards(after.take(), limit).await.unwrap();
            let full = page.len() == usize::try_from(limit).unwrap();
            let own = page.iter().filter(|row| row.card.bank.as_str() == bank);
            read.extend(own.cloned());
            after = page.last().map(|row| row.card.clone());
            let done = after
                .as_ref()
                .is_none_or(|last| last.bank.as_str() > bank.as_str());
            if !full || done {
                break;
            }
        }
        assert_eq!(read, all, "{limit} at a time");
    }
    let first = ledger.cards(None, 1).await.unwrap();
    assert_eq!(first.len(), 1);
}

pub(super) async fn a_payment_is_found_by_its_id(world: World) {
    let sheet = world.trip().await;
    let proposal = approve(&sheet, 500, 1_000);
    let id = proposal.transaction_id;
    let find = async || world.ledger.authorization(id).await.unwrap();
    assert_eq!(find().await, None);
    hold(&world, &proposal).await;
    assert_eq!(find().await.unwrap().state, AuthorizationState::Held);
    let log = super::uuid();
    let booked = step(log, 1, vec![outcome(&proposal, 1, 0)]);
    world.ledger.book(booked).await.unwrap();
    let row = find().await.unwrap();
    assert_eq!(row.state, AuthorizationState::Final);
    assert_eq!(row.answer, answer(&proposal));
}

pub(super) async fn what_a_platform_says_more_is_booked_with_the_payment(world: World) {
    let sheet = world.trip().await;
    let mut part = approve(&sheet, 500, 1_000);
    part.request.particulars = Particulars {
        card: Some("ic_1".to_owned()),
        network_id: Some("123".to_owned()),
        terminal: Some("T1".to_owned()),
        adds_to: None,
        partial: true,
    };
    part.approved = Some(300);
    assert_eq!(
        hold(&world, &part).await,
        HoldReply::Held { approved_before: 0 }
    );
    let mut nothing = approve(&sheet, 0, 1_000);
    nothing.request.amount = Money::from_minor(0, Currency::USD);
    // What was held of the part counts, not what was asked for.
    assert_eq!(
        hold(&world, &nothing).await,
        HoldReply::Held {
            approved_before: 300
        }
    );
    let outcomes = vec![outcome(&part, 1, 0), outcome(&nothing, 1, 1)];
    let log = super::uuid();
    world.ledger.book(step(log, 1, outcomes)).await.unwrap();
    for (proposal, minor) in [(part, 300), (nothing, 0)] {
        let id = proposal.transaction_id;
        let row = world.ledger.authorization(id).await.unwrap().unwrap();
        assert_eq!(row.state, AuthorizationState::Final);
        assert_eq!(row.answer.amount.minor(), minor);
        assert_eq!(row.answer.verdict, Verdict::Approved);
    }
}

pub(super) async fn a_payment_stays_with_whom_it_was_answered_for(world: World) {
    let sheet = world.trip().await;
    // Nobody's card when it was asked for first, and declined.
    let known = approve(&sheet, 500, 1_000);
    let mut unknown = declined(known.clone(), Reason::UnknownCard);
    unknown.request.shopper = ShopperId::of_unknown_card(number().unsigned_abs());
    unknown.trip = None;
    unknown.cap = None;
    let log = super::uuid();
    let booked = step(log, 1, vec![outcome(&unknown, 1, 0)]);
    world.ledger.book(booked).await.unwrap();
    // The card is somebody's now; the payment was answered.
    match hold(&world, &known).await {
        HoldReply::Final(told) => assert_eq!(told.reason, Reason::UnknownCard),
        other => panic!("{other:?}"),
    }
    let open = world.ledger.open_trip(sheet.trip.shopper).await.unwrap();
    assert_eq!(open.unwrap().approvals, []);
}

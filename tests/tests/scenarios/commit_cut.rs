//! The connection to the primary breaks while a COMMIT is under way, at every byte of it.

use standin_core::answer::Rung;
use standin_drill::proxy::Proxy;
use standin_drill::proxy::commit::CommitCutter;
use standin_tests::harness::stage::DATABASE;
use standin_tests::harness::{Bank, Edge, EdgeOptions, Payment, Stage, verdict};

use super::{PROGRAMS, SOON};

/// No COMMIT's exchange is longer.
const OFFSETS_MAX: u64 = 200;

/// `COMMIT` as a simple query: type, length, text, NUL.
const COMMIT_BYTES: u64 = 1 + 4 + 7;

/// A stage whose edge reaches the primary through a proxy that cuts COMMITs.
struct Cut {
    stage: Stage,
    edge: Edge,
    bank: Bank,
    cutter: CommitCutter,
    _proxy: Proxy,
}

impl Cut {
    async fn set() -> Self {
        let stage = Stage::set().await;
        stage.trip(1, 10_000_000).await;
        let cutter = CommitCutter::new();
        let proxy = Proxy::start_with(stage.postgres.port(), cutter.taps())
            .await
            .unwrap();
        let mut options = EdgeOptions::on(&stage);
        options.postgres = format!("postgres://standin@127.0.0.1:{}/{DATABASE}", proxy.port());
        // What is tried here is one connection at a time, not the breaker.
        options.breaker_failures = 1_000_000;
        let edge = Edge::start_with(PROGRAMS, &stage, options).await;
        let bank = edge.bank(2);
        let warm = bank.pay(&Payment::new("warm", 1, 99)).await;
        assert_eq!(warm.said().rung, Rung::Primary);
        Self {
            stage,
            edge,
            bank,
            cutter,
            _proxy: proxy,
        }
    }

    /// Cuts the next COMMIT, at each offset of its exchange in turn, until one passes whole; a
    /// payment is made for each. Gives how many bytes of request and reply were cut at.
    async fn at_every_offset(&self, name: &str, rung: Option<Rung>) -> (u64, u64) {
        let (mut request, mut reply) = (0, 0);
        for offset in 0..OFFSETS_MAX {
            self.edge.drained().await;
            let seen = self.cutter.seen();
            self.cutter.arm(offset);
            let payment = Payment::new(format!("{name}-{offset}"), 1, 100 + offset as i64);
            let told = self.bank.pay_until_answered(&payment, SOON).await;
            assert_eq!(told.status(), Some(200), "{name} at {offset}");
            let said = told.said();
            assert!(
                rung.is_none_or(|rung| rung == said.rung),
                "{name} at {offset}"
            );
            self.edge.drained().await;
            assert!(
                self.cutter.seen() > seen,
                "{name}: no COMMIT met offset {offset}"
            );
            let again = self.bank.pay(&payment).await;
            assert!(again.is_replayed());
            assert_eq!(again.said().code, said.code, "{name} at {offset}");
            let Some(cut) = self.cutter.cut() else {
                self.cutter.disarm();
                let last = self.cutter.last().unwrap();
                println!("injected: {name} cut at all {offset} offsets of {last:?}");
                assert_eq!(offset, last.request + last.reply, "{name}");
                return (request, reply);
            };
            assert_eq!(cut.request + cut.reply, offset, "{name}");
            // Up to the last byte of the request the primary does not commit; then it does.
            if offset < COMMIT_BYTES {
                request += 1;
            } else {
                reply += 1;
            }
        }
        panic!("{name}: the exchange never ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_holds_commit_cut_at_any_byte_changes_no_answer() {
    let mut cut = Cut::set().await;
    let (request, reply) = cut.at_every_offset("hold", None).await;
    assert!(request >= COMMIT_BYTES && reply > 0);
    let attempts = (request + reply) as usize;
    let end = verdict::end(&cut.stage, &mut cut.edge, &[]).await;
    end.all_approved();
    // One row for each payment: the warming one, those that were cut, the one that passed.
    assert_eq!(end.rows.len(), attempts + 2);
    let stood_in = end
        .rows
        .iter()
        .filter(|row| row.answer.rung == Rung::StandIn);
    assert_eq!(
        stood_in.count(),
        attempts,
        "a cut hold is no word of the primary"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_a_drains_commit_cut_at_any_byte_books_once() {
    let mut cut = Cut::set().await;
    // Without holds the only COMMITs are the drain's.
    let reply = cut.edge.order("force", "ada", "cutting the drain").await;
    assert_eq!(reply.status, 200);
    let rung = Some(Rung::StandIn);
    let (request, reply) = cut.at_every_offset("drain", rung).await;
    assert!(request >= COMMIT_BYTES && reply > 0);
    let end = verdict::end(&cut.stage, &mut cut.edge, &[]).await;
    end.all_approved();
    assert_eq!(end.rows.len() as u64, request + reply + 2);
    assert_eq!(
        cut.stage.ledger_counts().await.2,
        0,
        "nothing went to conflicts"
    );
}

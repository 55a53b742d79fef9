//! What strangers and tired machines do to an edge: slow clients, floods, replays, no descriptors left,
//! no processor left, files that are no configuration. An honest bank is answered all the while.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use standin_cli::client::{Call, Pool};
use standin_core::clock::{Clock, SystemClock};
use standin_core::signature::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, sign};
use standin_tests::harness::bank::SECRET;
use standin_tests::harness::wait::until;
use standin_tests::harness::{Bank, Edge, EdgeOptions, Payment, Stage, verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{PROGRAMS, SOON};

async fn set() -> (Stage, Edge, Bank) {
    let stage = Stage::set().await;
    stage.trips(1, 4, 10_000_000).await;
    let edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(8);
    (stage, edge, bank)
}

/// As many descriptors for this process as it may have.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

/// An honest bank's payments, one after the other; each is answered at the first try.
async fn honest(bank: &Bank, name: &str, count: i64) {
    for number in 0..count {
        let payment = Payment::new(format!("{name}-{number}"), 1, 100 + number);
        let told = bank.pay(&payment).await;
        assert_eq!(told.status(), Some(200), "{name}-{number}");
    }
}

/// Reads until the other end closes; gives what came.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    // A reset is a close as well.
    drop(read.expect("the edge closes the connection"));
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b5_a_recorded_request_fetches_its_answer_and_later_nothing() {
    let (stage, mut edge, bank) = set().await;
    let payment = Payment::new("b5", 1, 12_300);
    // Sent when its time is nearly over: the clock does the rest.
    let sent_at = SystemClock.now().as_secs() - 294;
    let secret: Secret = SECRET.parse().unwrap();
    let mut recorded = Call::post(Bank::path(), payment.body());
    recorded.headers.extend([
        (ID_HEADER, "recorded".to_owned()),
        (TIMESTAMP_HEADER, sent_at.to_string()),
        (
            SIGNATURE_HEADER,
            sign(&secret, "recorded", sent_at, &payment.body()),
        ),
    ]);
    let first = bank.pay(&payment).await;
    assert_eq!(first.status(), Some(200));
    let index = edge.status().await["register"]["answers"].clone();
    let again = bank.call(recorded.clone()).await;
    assert_eq!(again.reply().body, first.reply().body);
    assert!(again.is_replayed());
    let told = until("the end of its time", SOON, || async {
        let told = bank.call(recorded.clone()).await;
        (told.status() != Some(200)).then_some(told)
    })
    .await;
    assert_eq!(told.status(), Some(401));
    println!("injected: a recorded request, sent again inside and after its time");
    assert_eq!(edge.status().await["register"]["answers"], index);
    let end = verdict::end(&stage, &mut edge, &[]).await;
    assert_eq!(end.rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_slow_clients_are_cut_and_cost_the_others_nothing() {
    const EACH: usize = 100;
    let (stage, mut edge, bank) = set().await;
    let head = format!("POST {} HTTP/1.1\r\nhost: edge\r\n", Bank::path());
    let body = format!("{head}content-length: 100\r\n\r\n{{");
    let mut slow = JoinSet::new();
    for (begin, drips) in [("", false), (head.as_str(), true), (body.as_str(), false)] {
        for _ in 0..EACH {
            let mut stream = TcpStream::connect(edge.address()).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            slow.spawn(async move {
                let mut drops = 0;
                // One more byte of a header each time, as long as somebody takes it.
                while drips && stream.write_all(b"x").await.is_ok() {
                    drops += 1;
                    assert!(drops < 600, "it is never cut");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                closed(stream).await
            });
        }
    }
    println!(
        "injected: {} clients that send slowly or nothing",
        slow.len()
    );
    honest(&bank, "b8", 100).await;
    let mut timed_out = 0;
    while let Some(said) = slow.join_next().await {
        let said = said.unwrap();
        timed_out += usize::from(said.starts_with(b"HTTP/1.1 408"));
    }
    assert_eq!(timed_out, EACH, "those whose head was whole are told");
    honest(&bank, "b8-after", 20).await;
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_flood_of_connections_from_one_address_leaves_room_for_the_others() {
    const FLOOD: usize = 1_300;
    const ADMITTED: usize = 1_024;
    raise_descriptors();
    let (stage, mut edge, bank) = set().await;
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        flood.push(socket.connect(edge.address()).await.unwrap());
    }
    println!("injected: {FLOOD} connections from one address");
    honest(&bank, "b10", 50).await;
    // Bound: the silent ones that were admitted are cut after three seconds, the others at once.
    let closings = flood.into_iter().map(|stream| tokio::spawn(closed(stream)));
    for closing in closings.collect::<Vec<_>>() {
        closing.await.unwrap();
    }
    let refused = edge
        .log()
        .matches("an address has as many connections")
        .count();
    assert!(
        refused >= 1,
        "nobody was told of {} refusals",
        FLOOD - ADMITTED
    );
    let turned = edge.metric("standin_connections_refused_total", &[]).await;
    assert!(turned >= (FLOOD - ADMITTED) as u64 / 2, "{turned}");
    honest(&bank, "b10-after", 20).await;
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e5_an_edge_without_descriptors_serves_whom_it_has_and_recovers_alone() {
    raise_descriptors();
    let (stage, mut edge, bank) = set().await;
    honest(&bank, "e5", 20).await;
    let id = edge.process().id();
    let process = Pid::from_raw(i32::try_from(id).unwrap());
    let open = || std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() as u64;
    let limit = |more: u64| Rlimit {
        current: Some(open() + more),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(process, Resource::Nofile, limit(20)).unwrap();
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(TcpStream::connect(edge.address()).await.unwrap());
    }
    until("no descriptors", SOON, || async {
        edge.log()
            .contains("cannot accept connections")
            .then_some(())
    })
    .await;
    println!(
        "injected: {} descriptors for {} connections",
        open(),
        held.len()
    );
    honest(&bank, "e5-without", 30).await;
    drop(held);
    // On a connection that it has to accept.
    let late = Payment::new("e5-late", 1, 777);
    let told = edge.bank(1).pay_until_answered(&late, SOON).await;
    assert_eq!(told.status(), Some(200));
    prlimit(process, Resource::Nofile, before).unwrap();
    honest(&bank, "e5-after", 20).await;
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e6_an_edge_that_hardly_gets_the_processor_answers_in_time_or_says_so() {
    let (stage, mut edge, bank) = set().await;
    let shoppers = stage.trips(5, 20, 10_000_000).await;
    let load = bank.load("e6", 6, &shoppers);
    load.progress(50, SOON).await;
    let changes = edge.status().await["breaker"]["changes"].as_u64().unwrap();
    let process = Pid::from_raw(i32::try_from(edge.process().id()).unwrap()).unwrap();
    // A tenth of a second each: it runs ten milliseconds of it.
    let over = CancellationToken::new();
    // The pauses are the fault, not a wait for something.
    let starving = tokio::spawn({
        let over = over.clone();
        async move {
            let mut stops = 0_u32;
            while !over.is_cancelled() {
                kill_process(process, Signal::STOP).unwrap();
                tokio::time::sleep(Duration::from_millis(90)).await;
                kill_process(process, Signal::CONT).unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
                stops += 1;
            }
            stops
        }
    });
    load.progress(100, SOON).await;
    over.cancel();
    let stops = starving.await.unwrap();
    println!("injected: {stops} times 90 ms without the processor, and 10 ms with it");
    assert!(stops >= 5);
    load.progress(100, SOON).await;
    for payment in load.stop().await {
        bank.pay_until_answered(&payment, SOON).await;
    }
    let flapped = edge.status().await["breaker"]["changes"].as_u64().unwrap() - changes;
    println!("the breaker changed {flapped} times");
    let attempts = stage.history.attempts();
    let silent = attempts.iter().filter(|attempt| {
        matches!(
            attempt.outcome,
            standin_reconcile::history::Outcome::NoReply
        )
    });
    assert_eq!(silent.count(), 0, "every request got a reply");
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_files_that_are_no_configuration_change_nothing_and_the_way_back_works() {
    const SECOND: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    let stage = Stage::set().await;
    stage.trips(1, 4, 10_000_000).await;
    let file = stage.folder().join("first.secrets");
    let push = |bytes: &[u8]| std::fs::write(&file, bytes).unwrap();
    push(SECOND.as_bytes());
    let options = EdgeOptions {
        more: format!("secrets_file = {file:?}\n"),
        ..EdgeOptions::on(&stage)
    };
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let bank = edge.bank(2);
    let by_file = || async {
        let payment = Payment::new("f1-by-file", 2, 500);
        let signer = standin_cli::client::Signer::new(SECOND.parse::<Secret>().unwrap());
        let call = Call::post(Bank::path(), payment.body()).signed(&signer);
        let pool = Pool::new(edge.address().into(), 1);
        pool.ask(call, SOON).await.unwrap().status
    };
    let first = bank.pay(&Payment::new("f1-by-file", 2, 500)).await;
    assert_eq!(first.status(), Some(200));
    let large = vec![b'a'; 2 << 20];
    let half = &SECOND.as_bytes()[..20];
    for (what, bytes) in [
        ("empty", b"".as_slice()),
        ("half", half),
        ("too large", &large),
        ("not text", b"\xff\xfe\x00"),
        (
            "three at once",
            format!("{SECOND}\n{SECOND}\n{SECOND}").as_bytes(),
        ),
    ] {
        push(bytes);
        edge.alarm("bank_secrets", true, SOON).await;
        assert_eq!(by_file().await, 200, "{what}");
        honest(&bank, &format!("f1-{}", what.replace(' ', "-")), 5).await;
        push(SECOND.as_bytes());
        edge.alarm("bank_secrets", false, SOON).await;
        assert_eq!(by_file().await, 200);
        println!("injected: a file of secrets that is {what}, and the way back");
    }
    // What does not serve at a start does not start.
    push(half);
    let checked = edge.run(&[
        "config",
        "check",
        "--config",
        &edge.config().display().to_string(),
    ]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(64), "{said}");
    assert!(
        said.contains("line 1") && !said.contains("AAECAwQ"),
        "{said}"
    );
    push(SECOND.as_bytes());
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

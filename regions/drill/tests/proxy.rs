//! The fault proxy, tried on an echo server, and the COMMIT cutter on a real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::time::Duration;

use standin_drill::proxy::commit::CommitCutter;
use standin_drill::proxy::{Direction, Fault, Proxy};
use standin_drill::servers::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(10);
/// Shorter than any wait for an answer that comes.
const QUIET: Duration = Duration::from_millis(150);

/// A server that sends back what it gets.
struct Echo {
    port: u16,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                open.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        Self { port, task }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echoed(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(back).unwrap()
}

/// What still comes until the connection ends, however it ends.
async fn rest(stream: &mut TcpStream) -> usize {
    let mut count = 0;
    let mut chunk = [0; 1_024];
    while let Ok(some @ 1..) = timeout(PATIENCE, stream.read(&mut chunk)).await.unwrap() {
        count += some;
    }
    count
}

async fn dial(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap()
}

#[tokio::test]
async fn proxy_counts_what_it_did_so_that_a_fault_can_be_proved() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await.unwrap();
    let mut stream = dial(&proxy).await;
    assert_eq!(echoed(&mut stream, "hello").await, "hello");
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.forwarded), (1, 10));
    assert_eq!((counts.stalled, counts.delayed, counts.cut), (0, 0, 0));
    proxy.set_both(Fault::Sometimes {
        percent: 100,
        delay: Duration::from_millis(1),
    });
    assert_eq!(echoed(&mut stream, "slow").await, "slow");
    assert_eq!(proxy.counts().delayed, 2);
    proxy.set_both(Fault::Sometimes {
        percent: 0,
        delay: Duration::from_secs(60),
    });
    assert_eq!(echoed(&mut stream, "none").await, "none");
    assert_eq!(proxy.counts().delayed, 2);
    proxy.set_both(Fault::Stall);
    stream.write_all(b"held").await.unwrap();
    let mut chunk = [0; 8];
    assert!(timeout(QUIET, stream.read(&mut chunk)).await.is_err());
    let held = proxy.counts();
    assert_eq!((held.stalled, held.forwarded), (4, 26));
    proxy.set_both(Fault::Cut);
    assert_eq!(rest(&mut stream).await, 0);
    let mut refused = dial(&proxy).await;
    assert_eq!(rest(&mut refused).await, 0);
    assert_eq!(proxy.counts().cut, 2);
    assert_eq!(proxy.counts().connections, 1);
}

#[tokio::test]
async fn proxy_passes_delays_and_stalls_open_connections() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await.unwrap();
    let mut stream = dial(&proxy).await;
    assert_eq!(echoed(&mut stream, "hello").await, "hello");

    proxy.set(Direction::ToClient, Fault::Delay(QUIET));
    let began = Instant::now();
    assert_eq!(echoed(&mut stream, "slow").await, "slow");
    assert!(began.elapsed() >= QUIET);

    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set_both(Fault::Pass);
        proxy.set(direction, Fault::Stall);
        let mut fresh = dial(&proxy).await;
        for stream in [&mut stream, &mut fresh] {
            stream.write_all(b"held").await.unwrap();
            let mut back = [0; 4];
            let waited = timeout(QUIET, stream.read_exact(&mut back)).await;
            assert!(waited.is_err(), "nothing may pass while stalled");
        }
        proxy.set_both(Fault::Pass);
        for stream in [&mut stream, &mut fresh] {
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"held");
        }
    }
    proxy.stop().await;
    assert_eq!(rest(&mut stream).await, 0);
}

#[tokio::test]
async fn proxy_cuts_open_and_new_connections_until_told_otherwise() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await.unwrap();
    let mut stream = dial(&proxy).await;
    assert_eq!(echoed(&mut stream, "hello").await, "hello");
    proxy.set(Direction::ToServer, Fault::Cut);
    assert_eq!(rest(&mut stream).await, 0);
    assert_eq!(rest(&mut dial(&proxy).await).await, 0);
    proxy.set(Direction::ToServer, Fault::Pass);
    assert_eq!(echoed(&mut dial(&proxy).await, "again").await, "again");
}

#[tokio::test]
async fn proxy_cuts_after_so_many_bytes_of_either_direction() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.port).await.unwrap();
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set_both(Fault::Pass);
        let mut stream = dial(&proxy).await;
        assert_eq!(echoed(&mut stream, "uncounted").await, "uncounted");
        proxy.set(direction, Fault::CutAfter(7));
        assert_eq!(echoed(&mut stream, "12345").await, "12345");
        stream.write_all(b"6789").await.unwrap();
        let came = rest(&mut stream).await;
        match direction {
            // The two bytes may or may not be echoed before the whole connection is gone.
            Direction::ToServer => assert!(came <= 2, "{came}"),
            Direction::ToClient => assert_eq!(came, 2),
        }
    }
}

async fn through(proxy: &Proxy) -> (Client, JoinHandle<Result<(), tokio_postgres::Error>>) {
    let port = proxy.port();
    let url = format!("postgres://standin@127.0.0.1:{port}/ledger");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    (client, tokio::spawn(connection))
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// BEGIN, INSERT and COMMIT as simple queries, one after another.
    Simple,
    /// COMMIT as a prepared statement.
    Prepared,
    /// Everything sent before the first answer is read.
    Pipelined,
}

async fn insert(client: &Client, way: Way, number: u32) -> Result<(), tokio_postgres::Error> {
    let row = format!("insert into kept values ({number})");
    match way {
        Way::Simple => {
            client.batch_execute("begin").await?;
            client.batch_execute(&row).await?;
            client.batch_execute("commit").await
        }
        Way::Prepared => {
            let commit = client.prepare("COMMIT").await?;
            client.batch_execute("begin").await?;
            client.batch_execute(&row).await?;
            client.execute(&commit, &[]).await.map(drop)
        }
        Way::Pipelined => {
            let begin = client.batch_execute("begin");
            let row = client.batch_execute(&row);
            let commit = client.batch_execute("commit");
            let (begin, row, commit) = tokio::join!(begin, row, commit);
            begin.and(row).and(commit)
        }
    }
}

/// Before its last byte is there, a COMMIT has not happened; after it has, it did, whatever of the
/// reply arrives: at every offset, in each way that a client may send it.
#[tokio::test]
async fn commit_is_cut_at_every_offset_with_the_outcome_known() {
    let postgres = Postgres::start().await.unwrap();
    postgres.create_database("ledger").await.unwrap();
    let make = "create table kept (n int primary key)";
    postgres.execute("ledger", make).await.unwrap();
    let (direct, watching) = tokio_postgres::connect(&postgres.url("ledger"), NoTls)
        .await
        .unwrap();
    let watching = tokio::spawn(watching);
    let cutter = CommitCutter::new();
    let proxy = Proxy::start_with(postgres.port(), cutter.taps())
        .await
        .unwrap();
    let mut number = 0_u32;
    for way in [Way::Simple, Way::Prepared, Way::Pipelined] {
        // One that is not cut tells how long the exchange is.
        let (client, connection) = through(&proxy).await;
        number += 1;
        insert(&client, way, number).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        let whole = cutter.last().unwrap();
        assert!(
            !whole.cut && whole.request > 8 && whole.reply > 8,
            "{way:?} {whole:?}"
        );
        for offset in 0..whole.request + whole.reply {
            number += 1;
            let (client, connection) = through(&proxy).await;
            cutter.arm(offset);
            let told = insert(&client, way, number).await;
            let exchange = cutter.last().unwrap();
            assert!(exchange.cut, "{way:?} at {offset}");
            assert_eq!(exchange.request + exchange.reply, offset, "{way:?}");
            // A backend that was cut off before its COMMIT takes a moment to roll back; one that
            // has begun to reply has committed.
            let query = "select count(*) from kept where n = $1";
            let key = i32::try_from(number).unwrap();
            let row = direct.query_one(query, &[&key]).await.unwrap();
            let kept: i64 = row.get(0);
            let expected = i64::from(offset >= whole.request);
            assert_eq!(kept, expected, "{way:?} at {offset} of {whole:?}");
            // The client cannot know: it may only be told so once it has the whole answer.
            assert!(told.is_err() || kept == 1, "{way:?} at {offset}");
            drop(client);
            drop(connection.await.unwrap());
        }
        assert_eq!(cutter.last().map(|last| last.cut), Some(true));
    }
    drop(direct);
    watching.await.unwrap().unwrap();
}

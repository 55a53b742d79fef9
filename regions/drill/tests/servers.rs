//! What the servers promise, tried on the real ones installed here.

use std::time::Duration;

use standin_drill::servers::redis::Reply;
use standin_drill::servers::{Postgres, Redis, RedisOptions};
use tokio_postgres::NoTls;

/// Long enough for any answer of a server that runs; short for one that is frozen.
const PATIENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn postgres_paused_answers_neither_new_nor_existing_connections() {
    let postgres = Postgres::start().await.unwrap();
    let url = postgres.create_database("ledger").await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("select 1").await.unwrap();

    postgres.pause().unwrap();
    let mut existing = Box::pin(client.batch_execute("select 1"));
    let waited = tokio::time::timeout(PATIENCE, &mut existing).await;
    assert!(waited.is_err(), "an existing connection must hang");
    let fresh = tokio_postgres::connect(&url, NoTls);
    let waited = tokio::time::timeout(PATIENCE, fresh).await;
    assert!(waited.is_err(), "a new connection must hang");

    postgres.resume().unwrap();
    existing.await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn postgres_killed_comes_back_with_what_it_committed() {
    let postgres = Postgres::start().await.unwrap();
    let database = "ledger";
    postgres.create_database(database).await.unwrap();
    let make = "create table kept (n int); insert into kept values (7)";
    postgres.execute(database, make).await.unwrap();
    postgres.kill().await.unwrap();
    assert!(postgres.execute(database, "select 1").await.is_err());
    postgres.restart().await.unwrap();
    let check =
        "do $$ begin if (select n from kept) <> 7 then raise exception 'lost'; end if; end $$";
    postgres.execute(database, check).await.unwrap();
    // In order, while it runs and while it is frozen.
    postgres.restart().await.unwrap();
    postgres.execute(database, check).await.unwrap();
    postgres.pause().unwrap();
    postgres.kill().await.unwrap();
    postgres.restart().await.unwrap();
    postgres.execute(database, check).await.unwrap();
}

#[tokio::test]
async fn redis_keeps_an_appended_write_over_a_kill_and_feeds_a_replica() {
    let appendonly = RedisOptions {
        appendonly: true,
        ..RedisOptions::default()
    };
    let primary = Redis::start(appendonly).await.unwrap();
    primary.command(&["SET", "kept", "7"]).await.unwrap();
    primary.kill().await.unwrap();
    assert!(primary.command(&["PING"]).await.is_err());
    primary.restart().await.unwrap();
    let kept = primary.command(&["GET", "kept"]).await.unwrap();
    assert_eq!(kept, Reply::Text("7".to_owned()));

    let following = RedisOptions {
        replica_of: Some(primary.port()),
        ..RedisOptions::default()
    };
    let replica = Redis::start(following).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while replica.command(&["GET", "kept"]).await.unwrap() != kept {
        assert!(tokio::time::Instant::now() < deadline, "never replicated");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    primary.pause().unwrap();
    let asked = tokio::time::timeout(PATIENCE, primary.command(&["PING"])).await;
    assert!(asked.is_err(), "a paused server must hang");
    primary.resume().unwrap();
    primary.command(&["PING"]).await.unwrap();
}

//! What the servers promise, tried on the real ones installed here.

use std::time::Duration;

use standin_drill::servers::redis::Reply;
use standin_drill::servers::{
    Postgres, PostgresOptions, Redis, RedisOptions, Replicated, ReplicatedOptions,
};
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
async fn postgres_standby_follows_waits_lags_and_is_promoted() {
    let primary = PostgresOptions {
        fsync: false,
        ..PostgresOptions::default()
    };
    let group = Replicated::start(ReplicatedOptions {
        primary,
        standbys: 1,
        synchronous: true,
    })
    .await
    .unwrap();
    let (old, new) = (&group.primary, &group.standbys[0]);
    let url = old.create_database("ledger").await.unwrap();
    let make = "create table kept (n int); insert into kept values (1)";
    old.execute("ledger", make).await.unwrap();
    old.caught_up(new).await.unwrap();
    let count = "select count(*) from kept";
    let there = new.ask_in("ledger", count).await.unwrap();
    assert_eq!(there.as_deref(), Some("1"));
    assert!(
        new.execute("ledger", "insert into kept values (2)")
            .await
            .is_err()
    );

    // A commit waits for its standby, and ends when that is back.
    new.detach().await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut waiting = Box::pin(client.batch_execute("insert into kept values (2)"));
    let waited = tokio::time::timeout(PATIENCE, &mut waiting).await;
    assert!(waited.is_err(), "a commit must wait for the standby");
    new.attach(old).await.unwrap();
    waiting.await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();

    // Nothing waits any more, and what the standby did not hear of is not on it.
    old.wait_for_standbys(false).await.unwrap();
    old.caught_up(new).await.unwrap();
    new.detach().await.unwrap();
    old.execute("ledger", "insert into kept values (3)")
        .await
        .unwrap();
    old.stop_immediate().await.unwrap();
    new.promote().await.unwrap();
    new.execute("ledger", "insert into kept values (4)")
        .await
        .unwrap();
    let there = new
        .ask_in("ledger", "select sum(n) from kept")
        .await
        .unwrap();
    assert_eq!(there.as_deref(), Some("7"));
    // The old one comes back as it was, and takes writes too.
    old.restart().await.unwrap();
    let there = old
        .ask_in("ledger", "select sum(n) from kept")
        .await
        .unwrap();
    assert_eq!(there.as_deref(), Some("6"));
    old.execute("ledger", "insert into kept values (5)")
        .await
        .unwrap();
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

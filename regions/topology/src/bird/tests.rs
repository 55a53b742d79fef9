use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;

use super::*;

const WITHIN: Duration = Duration::from_secs(20);

/// A socket where somebody says these bytes to the first command, and then hangs up.
async fn says(
    reply: &'static [u8],
) -> (tempfile::TempDir, Control, tokio::task::JoinHandle<String>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bird.ctl");
    let listener = UnixListener::bind(&socket).unwrap();
    let talking = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"0001 BIRD 2.0.12 ready.\n")
            .await
            .unwrap();
        let mut asked = vec![0; 100];
        let length = stream.read(&mut asked).await.unwrap();
        // Who asked may hang up in the middle of a long reply.
        drop(stream.write_all(reply).await);
        String::from_utf8(asked[..length].to_vec()).unwrap()
    });
    (dir, Control::new(socket, WITHIN), talking)
}

fn named(name: &str) -> ProtocolName {
    ProtocolName::new(name).unwrap()
}

#[tokio::test]
async fn protocols_read_as_bird_shows_them() {
    let (_dir, control, talking) = says(
        b"2002-Name       Proto      Table      State  Since         Info\n\
          1002-device1    Device     ---        up     20:13:28.035  \n \
          standin_prefix Static     master4    down   2026-11-30    \n \
          upstream   BGP        ---        up     20:13:28.965  Established   \n\
          0000 \n",
    )
    .await;
    let all = control.protocols().await.unwrap();
    let short: Vec<_> = all
        .iter()
        .map(|one| {
            (
                one.name.as_str(),
                one.kind.as_str(),
                one.is_up(),
                one.info.as_str(),
            )
        })
        .collect();
    assert_eq!(
        short,
        [
            ("device1", "Device", true, ""),
            ("standin_prefix", "Static", false, ""),
            ("upstream", "BGP", true, "Established"),
        ]
    );
    assert_eq!(talking.await.unwrap(), "show protocols\n");
}

#[tokio::test]
async fn a_switch_that_is_there_already_is_no_fault() {
    for reply in [
        &b"0009-standin_prefix: disabled\n0000 \n"[..],
        b"0008-standin_prefix: already disabled\n0000 \n",
    ] {
        let (_dir, control, talking) = says(reply).await;
        control.disable(&named("standin_prefix")).await.unwrap();
        assert_eq!(talking.await.unwrap(), "disable standin_prefix\n");
    }
    let (_dir, control, _talking) = says(b"0000 \n").await;
    let refused = control.enable(&named("standin_prefix")).await;
    assert!(
        matches!(refused, Err(BirdError::Reply { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_no_router_hears_is_told_apart() {
    let row = |name: &str, kind: &str, state: &str, info: &str| {
        format!("1002-{name} {kind} master4 {state} 20:13:28.035 {info}\n")
    };
    let cases = [
        ("up", "up", "Established", InForce::Announced),
        ("up", "start", "Connect", InForce::Unheard),
        ("down", "up", "Established", InForce::Withdrawn),
    ];
    for (own, session, info, expected) in cases {
        let mut reply = "2002-Name Proto Table State Since Info\n".to_owned();
        reply.push_str(&row("standin_prefix", "Static", own, ""));
        reply.push_str(&row("upstream_1", "BGP", session, info));
        reply.push_str("0000 \n");
        let reply: &'static [u8] = Box::leak(reply.into_bytes().into_boxed_slice());
        let (_dir, control, _talking) = says(reply).await;
        let mut bird = Bird::new(control, vec![named("standin_prefix")]);
        assert_eq!(bird.in_force().await.unwrap(), expected);
    }
    let (_dir, control, _talking) = says(b"1002-other Static master4 up 1 \n0000 \n").await;
    let unknown = Bird::new(control, vec![named("standin_prefix")])
        .in_force()
        .await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn a_refusal_is_told_in_birds_words() {
    let (_dir, control, _talking) = says(b"9001 syntax error, unexpected CF_SYM_UNDEFINED\n").await;
    let error = control.enable(&named("nope")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "bird refused \"enable nope\": 9001 syntax error, unexpected CF_SYM_UNDEFINED"
    );
}

#[tokio::test]
async fn noise_silence_and_endless_replies_are_errors() {
    for noise in [
        &b"hello\n"[..],
        b"12\n",
        b"1002+x\n",
        b"\xff\xfe\n",
        b"0009-half a rep",
    ] {
        let (_dir, control, _talking) = says(noise).await;
        let error = control.protocols().await.unwrap_err();
        let told = matches!(error, BirdError::Reply { .. } | BirdError::Io { .. });
        assert!(told, "{error:?}");
    }
    let endless: &'static [u8] = Box::leak(b"1002-a b c up\n".repeat(30_000).into_boxed_slice());
    let (_dir, control, _talking) = says(endless).await;
    let error = control.protocols().await.unwrap_err();
    assert!(matches!(error, BirdError::Io { .. }), "{error:?}");
    let dir = tempfile::tempdir().unwrap();
    let silent = dir.path().join("bird.ctl");
    let _listener = UnixListener::bind(&silent).unwrap();
    let control = Control::new(&silent, Duration::from_millis(20));
    let error = control.protocols().await.unwrap_err();
    assert!(matches!(error, BirdError::TimedOut { .. }), "{error:?}");
    let error = Control::new(dir.path().join("none"), WITHIN)
        .protocols()
        .await
        .unwrap_err();
    assert!(matches!(error, BirdError::Io { .. }), "{error:?}");
}

#[test]
fn a_name_is_a_name_and_nothing_else() {
    for good in ["standin_prefix", "a", "A9"] {
        assert!(ProtocolName::new(good).is_ok(), "{good}");
    }
    for bad in ["", "9a", "a b", "a\ndown", "all;", "\"x\"", "ä"] {
        assert!(ProtocolName::new(bad).is_err(), "{bad}");
    }
}

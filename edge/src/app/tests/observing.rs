//! What an observer is told of each request.

use std::sync::Mutex;

use super::*;
use crate::adapter::Asked;
use crate::authenticate::AuthenticationError;
use crate::observer::{Observer, Seen, Told};

#[derive(Default)]
struct Notebook(Mutex<Vec<Seen>>);

impl Observer for Notebook {
    fn saw(&self, seen: &Seen) {
        self.0.lock().unwrap().push(seen.clone());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_sees_what_was_understood_and_why_a_request_is_not_authentic() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = Arc::new(Notebook::default());
    let hooks = Hooks {
        observer: Some(Arc::<Notebook>::clone(&notebook)),
        ..Hooks::default()
    };
    let edge = Edge::start(config(dir.path()), hooks).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    assert_eq!(post(&edge, SEED).await.0, 200);
    assert_eq!(post(&edge, SEED).await.0, 200);
    assert_eq!(post(&edge, "{}").await.0, 400);
    let mut stream = TcpStream::connect(edge.address()).await.unwrap();
    let unsigned = "POST /v1/banks/first/authorizations HTTP/1.1\r\nhost: edge\r\n\
                    connection: close\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(unsigned.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    assert_eq!(edge.stop().await, Stopped::Clean);

    let seen = notebook.0.lock().unwrap();
    let [first, again, wrong, unsigned] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    let Some(Asked::Authorization(asked)) = &first.asked else {
        panic!("{first:?}");
    };
    assert_eq!(asked.amount.minor(), 30_000);
    assert_eq!(first.authentic, Some(Ok(())));
    let Told::Answer(answer, false) = &first.told else {
        panic!("{first:?}");
    };
    assert_eq!(again.told, Told::Answer(answer.clone(), true));
    assert_eq!((&wrong.authentic, &wrong.asked), (&Some(Ok(())), &None));
    assert!(matches!(&wrong.told, Told::Problem(Problem::Field { .. })));
    assert_eq!(
        (&unsigned.authentic, &unsigned.told),
        (
            &Some(Err(AuthenticationError::Header)),
            &Told::Problem(Problem::Unauthorized)
        )
    );
}

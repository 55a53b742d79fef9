//! Everything that decodes bytes from a disk or another node, with bytes that nobody wrote.
//!
//! Nothing panics, and no decoder takes more memory than its input allows. Inputs are the ones kept in
//! `tests/corpus`, changed by a seed; in half of them the checksums are made right again, so that what
//! lies behind them is reached. A failure prints the line that replays it. For longer:
//! `STANDIN_FUZZ_RUNS=1000000 cargo nextest run -p standin-wal fuzz --no-capture`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::{EntryPayload, Membership, Vote};

use super::lab::{Dice, commit, open_as, tiny};
use crate::disk::recording::RecordingDisk;
use crate::format::checksum;
use crate::group::Change;
use crate::inspect;
use crate::raft::snapshot::{About, SNAPSHOT_FILE, Snapshot};
use crate::raft::tests::Notes;
use crate::raft::wire::{Request, Response, Standing, WireOutcome, WireVote, decode, encode};
use crate::raft::{Member, Payload, RaftEntry, Types, log_id};
use crate::wal::Applied;

type Input = Vec<u8>;

/// A kind of input, and what decodes it.
struct Target {
    name: &'static str,
    /// Whether the input was taken for what it claims to be.
    decode: fn(&[u8]) -> bool,
    restamp: fn(&mut Input),
    /// Most bytes taken at once for each byte of input, and besides.
    memory: (u64, u64),
}

const TARGETS: [Target; 4] = [
    Target {
        name: "log",
        decode: decode_log,
        restamp: restamp_log,
        memory: (48, 1 << 20),
    },
    Target {
        name: "snapshot",
        decode: decode_snapshot,
        restamp: restamp_snapshot,
        memory: (48, 1 << 16),
    },
    Target {
        name: "request",
        decode: decode_request,
        restamp: |_| {},
        memory: (400, 1 << 16),
    },
    Target {
        name: "response",
        decode: decode_response,
        restamp: |_| {},
        memory: (400, 1 << 16),
    },
];

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

fn from_env(name: &str, or: u64) -> u64 {
    let told = std::env::var(name).ok();
    told.map_or(or, |told| told.parse().expect("a number"))
}

fn run(name: &str, runs: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut kept: Vec<PathBuf> = std::fs::read_dir(corpus(name))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    kept.sort();
    assert!(!kept.is_empty());
    let kept: Vec<Input> = kept
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    for input in &kept {
        assert!(check(target, input, "as it is kept").1);
    }
    let first = from_env("STANDIN_FUZZ_SEED", 1);
    let runs = from_env("STANDIN_FUZZ_RUNS", runs);
    let (mut most, mut taken) = (0, 0);
    for seed in first..first + runs {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9));
        let mut input = kept[dice.below(kept.len())].clone();
        for _ in 0..1 + dice.below(6) {
            change(&mut input, &kept, &mut dice);
        }
        if dice.below(2) == 0 {
            (target.restamp)(&mut input);
        }
        let replay = format!("STANDIN_FUZZ_SEED={seed} STANDIN_FUZZ_RUNS=1, target {name}");
        let (bytes, was_taken) = check(target, &input, &replay);
        most = most.max(bytes);
        taken += u64::from(was_taken);
    }
    println!(
        "{name}: {runs} inputs, {taken} of them taken, no panic; at most {most} bytes of memory"
    );
    assert!(
        runs < 1_000 || taken * 50 > runs,
        "nearly all are refused at the door"
    );
}

/// Decodes once; how much memory that took at most, and whether the input was taken.
fn check(target: &Target, input: &[u8], what: &str) -> (u64, bool) {
    let mut outcome = Ok(false);
    let took = allocation_counter::measure(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (target.decode)(input)));
    });
    let was_taken = outcome.unwrap_or_else(|_| panic!("it panicked: {what}"));
    let (each, besides) = target.memory;
    let may = each * input.len() as u64 + besides;
    let most = took.bytes_max;
    assert!(
        most <= may,
        "{most} bytes for {} of input: {what}",
        input.len()
    );
    (most, was_taken)
}

/// Changes an input in one of many ways.
fn change(input: &mut Input, kept: &[Input], dice: &mut Dice) {
    let length = input.len().max(1);
    // Mostly where headers are.
    let at = match dice.below(3) {
        0 => dice.below(length),
        1 => (dice.below(length) / 4096 * 4096 + dice.below(160)).min(length - 1),
        _ => dice.below(length.min(200)),
    };
    let width = [1, 2, 4, 8][dice.below(4)];
    match dice.below(8) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        2..=4 => {
            let extremes = [0, 1, 2, 3, 127, 128, 4095, 4096, 65_536, 1 << 31, u64::MAX];
            let value = match dice.below(3) {
                0 => dice.roll(),
                1 => u64::MAX - dice.roll() % 5,
                _ => extremes[dice.below(extremes.len())],
            };
            let bytes = value.to_le_bytes();
            for (byte, new) in input.iter_mut().skip(at).zip(&bytes[..width]) {
                *byte = *new;
            }
        }
        5 => input.truncate(at),
        6 => {
            let other = &kept[dice.below(kept.len())];
            let from = dice.below(other.len().max(1));
            let piece = &other[from..(from + 1 + dice.below(300)).min(other.len())];
            let end = (at + piece.len()).min(input.len());
            input.splice(at.min(end)..end, piece.iter().copied());
        }
        _ => {
            let value = dice.roll() as u8;
            input.splice(at.min(input.len())..at.min(input.len()), [value; 3]);
        }
    }
}

// === a log: its identity (one block), its state (two), one segment ===

fn log_files(input: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (identity, rest) = input.split_at(input.len().min(4096));
    let (state, segment) = rest.split_at(rest.len().min(8192));
    let named = [
        ("identity", identity),
        ("state", state),
        ("segment-0000000001.wal", segment),
    ];
    named
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
        .collect()
}

fn decode_log(input: &[u8]) -> bool {
    let files = log_files(input);
    let disk = RecordingDisk::with(files.clone());
    drop(inspect::verify_on(&disk));
    drop(inspect::examine_on(&disk));
    if let Ok(frames) = inspect::frames_on(&disk, 0) {
        assert!(frames.take(1_000).count() < 1_000, "frames without end");
    }
    if let Ok(batches) = inspect::batches_on(&disk) {
        assert!(batches.take(1_000).count() < 1_000, "batches without end");
    }
    open_as(&disk, 1, tiny()).is_ok()
}

fn restamp_log(input: &mut Input) {
    fn put(bytes: &mut [u8], at: usize, salt: u32, offset: u64) {
        let crc = checksum(salt, offset, &bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    // The files have their sizes again.
    input.resize(12_288 + 32 * 1024, 0);
    put(&mut input[..4096], 103, 0, 0);
    let salt = crc32c::crc32c(&input[10..26]);
    for slot in [4096, 8192] {
        put(&mut input[slot..slot + 4096], 68, salt, 0);
    }
    let segment = &mut input[12_288..];
    put(&mut segment[..4096], 136, 0, 0);
    let salt = u32::from_le_bytes(segment[64..68].try_into().unwrap());
    for at in (4096..segment.len().saturating_sub(4095)).step_by(4096) {
        let (frame, offset) = (&mut segment[at..], at as u64);
        if frame[..2] == [0x57, 0x46] {
            let length = u32::from_le_bytes(frame[4..8].try_into().unwrap()) as usize;
            if let Some(payload) = frame.get(64..64_usize.saturating_add(length)) {
                let crc = checksum(salt, offset, payload);
                frame[28..32].copy_from_slice(&crc.to_le_bytes());
            }
            put(&mut frame[..64], 60, salt, offset);
        }
        put(&mut frame[4064..4096], 28, salt, offset);
    }
}

// === a snapshot ===

fn decode_snapshot(input: &[u8]) -> bool {
    let disk = RecordingDisk::with([(SNAPSHOT_FILE.to_owned(), input.to_vec())]);
    Snapshot::read(&disk).is_ok()
}

fn restamp_snapshot(input: &mut Input) {
    let Some((head, rest)) = input.split_at_checked(28) else {
        return;
    };
    let about = u32::from_le_bytes(head[12..16].try_into().unwrap()) as usize;
    let (about, state) = rest.split_at(about.min(rest.len()));
    let crc = checksum(checksum(checksum(0, 0, &head[..24]), 0, about), 0, state);
    input[24..28].copy_from_slice(&crc.to_le_bytes());
}

// === messages ===

fn decode_request(input: &[u8]) -> bool {
    match decode::<Request>(input) {
        Some(Request::Append(mut append)) => {
            let payloads = append.payloads();
            append.keep(payloads.len() / 2);
            append.into_request::<Notes>().is_some()
        }
        Some(Request::Snapshot { about, .. }) => about.meta().is_some(),
        Some(
            Request::Vote { .. } | Request::Propose { .. } | Request::Standing | Request::Change(_),
        ) => true,
        None => false,
    }
}

fn decode_response(input: &[u8]) -> bool {
    let appended = decode::<Response>(input).and_then(Response::into_appended);
    let voted = decode::<Response>(input).and_then(Response::into_voted);
    assert!(appended.is_none() || voted.is_none());
    decode::<Response>(input).is_some()
}

fn members() -> Membership<u64, Member> {
    let member = |node: u64| {
        let address = format!("10.0.0.{node}:7700");
        let log = uuid::Uuid::from_u128(node.into());
        (node, Member { address, log })
    };
    let nodes: BTreeMap<u64, Member> = (1..=4).map(member).collect();
    Membership::new(vec![[1, 2, 3].into()], nodes)
}

#[allow(clippy::too_many_lines, reason = "one of every kind")]
fn messages() -> (Vec<Bytes>, Vec<Bytes>) {
    let entry = |index, payload| RaftEntry::<Notes> {
        log_id: log_id(3, index),
        payload,
    };
    let proposals = Payload {
        log_time_ms: 1_700_000_000_000,
        proposals: vec![
            Bytes::from_static(b"one"),
            Bytes::new(),
            vec![7; 300].into(),
        ],
    };
    let vote = Vote::new_committed(3, 1);
    let append = AppendEntriesRequest::<Types<Notes>> {
        vote,
        prev_log_id: Some(log_id(2, 6)),
        entries: vec![
            entry(7, EntryPayload::Blank),
            entry(8, EntryPayload::Normal(proposals)),
            entry(9, EntryPayload::Membership(members())),
        ],
        leader_commit: Some(log_id(2, 5)),
    };
    let asks = VoteRequest::new(Vote::new(4, 2), Some(log_id(3, 9)));
    let requests = [
        Request::append(append),
        Request::vote(&asks),
        Request::Snapshot {
            vote: WireVote::of(&vote),
            about: About::of(&snapshot().meta, 5),
            state: vec![9; 500].into(),
        },
        Request::Propose {
            proposals: vec![Bytes::from_static(b"a proposal"); 3],
        },
        Request::Standing,
        Request::Change(Change::AddKeeper { node: 4 }),
    ];
    let applied = Applied {
        term: 3,
        index: 9,
        slot: 1,
        log_time_ms: 77,
    };
    let responses = [
        Response::Appended,
        Response::AppendedTo(Some((9, 3))),
        Response::Conflict,
        Response::HigherVote(WireVote::of(&vote)),
        Response::Voted {
            vote: WireVote::of(&vote),
            granted: true,
            last: None,
        },
        Response::Outcomes(vec![WireOutcome::of(applied, vec![1; 40])]),
        Response::NotLeader(Some(2)),
        Response::Failed("a reason".to_owned()),
        Response::Standing(Standing {
            log: uuid::Uuid::from_u128(7),
            keepers: members()
                .nodes()
                .map(|(id, of)| (*id, of.clone()))
                .collect(),
            learners: BTreeMap::new(),
            matched: BTreeMap::from([(2, 7)]),
            segments_left: 3,
        }),
    ];
    (
        requests.iter().map(encode).collect(),
        responses.iter().map(encode).collect(),
    )
}

fn snapshot() -> Snapshot {
    let members = openraft::StoredMembership::new(Some(log_id(2, 4)), members());
    Snapshot {
        meta: openraft::SnapshotMeta {
            last_log_id: Some(log_id(3, 9)),
            last_membership: members,
            snapshot_id: "3-9-1".to_owned(),
        },
        log_time_ms: 1_700_000_000_000,
        state: vec![5; 700].into(),
    }
}

#[test]
fn a_fuzzed_log_is_read_or_refused() {
    run("log", 3_000);
}

#[test]
fn a_fuzzed_snapshot_is_read_or_refused() {
    run("snapshot", 20_000);
}

#[test]
fn a_fuzzed_request_is_read_or_refused() {
    run("request", 40_000);
}

#[test]
fn a_fuzzed_response_is_read_or_refused() {
    run("response", 40_000);
}

#[test]
#[ignore = "writes the corpus; only when a format has changed"]
fn write_the_corpus() {
    let keep = |kind: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(corpus(kind)).unwrap();
        std::fs::write(corpus(kind).join(name), bytes).unwrap();
    };
    for stops in [false, true] {
        let disk = RecordingDisk::default();
        let mut log = open_as(&disk, 5, tiny()).unwrap();
        for sizes in [&[3, 0, 40][..], &[5_000], &[700, 9]] {
            let proposals: Vec<Bytes> = sizes.iter().map(|size| vec![7; *size].into()).collect();
            commit(&mut log, &proposals);
        }
        log.mark().unwrap();
        if stops {
            log.finish().unwrap();
        }
        let files = disk.files();
        let parts = ["identity", "state", "segment-0000000001.wal"];
        let whole: Vec<u8> = parts.iter().flat_map(|part| files[*part].clone()).collect();
        keep("log", if stops { "stopped" } else { "killed" }, &whole);
    }
    let disk = RecordingDisk::default();
    snapshot().write(&disk).unwrap();
    keep("snapshot", "whole", &disk.files()[SNAPSHOT_FILE]);
    let (requests, responses) = messages();
    for (kind, all) in [("request", requests), ("response", responses)] {
        for (number, bytes) in all.iter().enumerate() {
            keep(kind, &format!("{number}"), bytes);
        }
    }
}

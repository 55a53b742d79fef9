//! Disks of keepers fill, fail, rot, lose their power, are wiped and are put back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use standin_drill::disk::{Disk, fail_writes};
use standin_tests::harness::bank::Load;
use standin_tests::harness::{Banks, Group, GroupOptions, Stage, verdict, wait};

use super::keepers::settle;
use super::{PROGRAMS, Random, SOON, seed};

const SHOPPERS: u64 = 20;
const WORKERS: usize = 6;
/// What the edge exits with when its log's disk failed.
const POISONED: i32 = 74;

struct Scene {
    stage: Stage,
    group: Group,
    banks: Banks,
    load: Load,
}

// === impl Scene ===

impl Scene {
    async fn set(name: &str) -> Self {
        let stage = Stage::set().await;
        Self::set_on(name, stage, Vec::new()).await
    }

    async fn set_on(name: &str, stage: Stage, folders: Vec<PathBuf>) -> Self {
        let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
        let mut options = GroupOptions::on(&stage);
        options.folders = folders;
        let group = Group::start(PROGRAMS, &stage, options).await;
        let banks = group.banks(WORKERS);
        let load = banks.load(name, WORKERS, &shoppers);
        load.progress(30, SOON).await;
        Self {
            stage,
            group,
            banks,
            load,
        }
    }

    async fn finish(mut self, lost: &[u64]) -> verdict::End {
        settle(&self.banks, self.load).await;
        verdict::end_of_group_with(&self.stage, &mut self.group, &[], lost).await
    }
}

/// The files of a log that its disk thread writes.
fn segments(wal: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(wal).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d3_p3_power_losses_of_one_disk_and_of_all_at_once_lose_no_answer() {
    const LOSSES: u64 = 20;
    let mut random = Random(seed());
    let stage = Stage::set().await;
    let disks: Vec<Disk> = (1..=3)
        .map(|id| Disk::ext4(stage.folder(), &format!("disk-{id}"), 192).unwrap())
        .collect();
    let folders = disks.iter().map(|disk| disk.path().join("edge")).collect();
    let mut scene = Scene::set_on("d3", stage, folders).await;
    let (mut cut, mut lost, mut all_at_once) = (0_u64, 0_u64, 0_u64);
    while lost < LOSSES {
        assert!(
            cut < 3 * LOSSES,
            "only {lost} of {cut} power cuts lost anything"
        );
        scene.load.progress(random.below(25), SOON).await;
        tokio::time::sleep(Duration::from_micros(random.below(10_000))).await;
        let leader = scene.group.led(SOON).await;
        let victims: Vec<u64> = match random.below(4) {
            0 => vec![1, 2, 3],
            1 => vec![1 + random.below(3)],
            _ => vec![leader],
        };
        all_at_once += u64::from(victims.len() == 3);
        for id in &victims {
            disks[*id as usize - 1].lose_power().unwrap();
        }
        for id in &victims {
            // It may have exited by itself: its writes fail now.
            if scene.group.edge(*id).runs() {
                scene.group.edge(*id).kill().await;
            }
        }
        for id in &victims {
            let loss = disks[*id as usize - 1].power_returns().await.unwrap();
            assert!(
                loss.kept_synced,
                "what was synced is gone: no fault of ours"
            );
            // Another file's sync may have taken the unsynced bytes along: that proves nothing.
            lost += u64::from(loss.lost_unsynced);
            cut += 1;
        }
        scene.group.restart_all().await;
    }
    println!(
        "injected: {cut} power cuts of an ext4, {lost} of them lost what was not synced; \
         {all_at_once} times all three at once"
    );
    let end = scene.finish(&[]).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_write_or_sync_that_fails_ends_the_keeper_and_no_other() {
    let mut scene = Scene::set("d2").await;
    for round in 0..4_u64 {
        let leader = scene.group.led(SOON).await;
        let victim = if round % 2 == 0 {
            leader
        } else {
            leader % 3 + 1
        };
        let log = scene.stage.folder().join(format!("strace-{round}.log"));
        let edge = scene.group.edge(victim);
        let files = segments(&edge.wal());
        let injector = fail_writes(edge.process().id(), &files, &log).unwrap();
        let status = edge.ends(SOON).await;
        drop(injector);
        let injected = std::fs::read_to_string(&log).unwrap();
        let errors = injected.matches("(INJECTED)").count();
        println!("injected: {errors} writes or syncs of edge {victim} failed with EIO: {status}");
        assert!(errors > 0, "nothing failed: {injected}");
        assert_eq!(status.code(), Some(POISONED), "{}", edge.log());
        scene.group.led_by(SOON, |id| id != victim).await;
        scene.load.progress(30, SOON).await;
        scene.group.edge(victim).restart().await;
        scene.load.progress(20, SOON).await;
    }
    let end = scene.finish(&[]).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_a_full_disk_of_one_keeper_stops_nobody_else() {
    let stage = Stage::set().await;
    let small = Disk::tmpfs(stage.folder(), "small", 24 * 1024).unwrap();
    let folders = vec![small.path().join("edge")];
    let mut scene = Scene::set_on("d1", stage, folders).await;
    let filler = small.path().join("filler");
    let mut full = std::fs::File::create(&filler).unwrap();
    let copied = std::io::copy(&mut std::io::repeat(7), &mut full);
    let error = copied.expect_err("the disk has no end");
    assert_eq!(error.raw_os_error(), Some(28), "{error}");
    println!("injected: the disk of edge 1 is full: {error}");
    scene.load.progress(200, SOON * 3).await;
    let edge = scene.group.edge(1);
    let page = edge.look().await.map(|page| page["wal"].clone());
    let said = edge.log();
    let lines = said.lines().filter(|line| line.contains("os error 28"));
    println!("edge 1 said so {} times; {page:?}", lines.count());
    let ran = edge.runs();
    drop(full);
    std::fs::remove_file(&filler).unwrap();
    if !ran {
        let status = scene.group.edge(1).ends(SOON).await;
        assert_eq!(status.code(), Some(POISONED));
        scene.group.edge(1).restart().await;
    }
    scene.load.progress(50, SOON).await;
    let end = scene.finish(&[]).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d4_a_log_that_rotted_is_not_served_from_and_not_cut() {
    let mut scene = Scene::set("d4").await;
    scene.load.progress(200, SOON).await;
    let leader = scene.group.led(SOON).await;
    let victim = leader % 3 + 1;
    let edge = scene.group.edge(victim);
    edge.kill().await;
    let first = segments(&edge.wal())
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|kind| kind == "seg" || kind == "wal")
        })
        .unwrap_or_else(|| panic!("no segment in {:?}", segments(&edge.wal())));
    let mut bytes = std::fs::read(&first).unwrap();
    // In the middle of what is written, well before its end.
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let at = (4_096..written / 2)
        .rev()
        .find(|at| bytes[*at] != 0)
        .unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(&first, &bytes).unwrap();
    println!(
        "injected: one bit of {} at byte {at} of {written} flipped",
        first.display()
    );
    edge.spawn();
    let status = edge.ends(SOON).await;
    assert!(!status.success(), "it started on a log that rotted");
    assert_eq!(
        std::fs::read(&first).unwrap(),
        bytes,
        "a damaged log was changed"
    );
    let said = edge.log();
    assert!(said.contains("did not start"), "{said}");
    scene.load.progress(50, SOON).await;
    // Put right by hand, so that the end can read three logs.
    bytes[at] ^= 0x10;
    std::fs::write(&first, &bytes).unwrap();
    scene.group.edge(victim).restart().await;
    let end = scene.finish(&[]).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_a_disk_that_takes_a_second_for_each_write_slows_nobody_else() {
    let mut scene = Scene::set("d5").await;
    for round in 0..2_u64 {
        let leader = scene.group.led(SOON).await;
        let victim = if round == 0 { leader % 3 + 1 } else { leader };
        let log = scene.stage.folder().join(format!("slow-{round}.log"));
        let edge = scene.group.edge(victim);
        let files = segments(&edge.wal());
        let slow = Duration::from_secs(1);
        let injector =
            standin_drill::disk::slow_writes(edge.process().id(), &files, slow, &log).unwrap();
        scene.load.progress(100, SOON * 2).await;
        // The others may be through before the first slow write is.
        wait::until_true("a write took a second longer", SOON, || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("(DELAYED)"))
        })
        .await;
        drop(injector);
        let injected = std::fs::read_to_string(&log).unwrap();
        let delays = injected.matches("(DELAYED)").count();
        println!("injected: {delays} writes of edge {victim} took a second longer");
        assert!(delays > 0, "nothing was slow: {injected}");
        scene.load.progress(50, SOON).await;
    }
    let end = scene.finish(&[]).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_keeper_whose_disk_is_wiped_or_anothers_never_votes_again() {
    let mut scene = Scene::set("d6").await;
    let leader = scene.group.led(SOON).await;
    let (victim, donor) = (leader % 3 + 1, leader);
    let edge = scene.group.edge(victim);
    edge.kill().await;
    let kept = scene.stage.folder().join("kept");
    std::fs::rename(edge.wal(), &kept).unwrap();
    println!("injected: the disk of edge {victim} is empty");
    edge.spawn();
    let status = edge.ends(SOON).await;
    let said = edge.log();
    assert!(
        !status.success(),
        "it came back as if it remembered\n{said}"
    );
    assert!(
        said.contains("this disk is not the one it voted with"),
        "{said}"
    );
    scene.load.progress(50, SOON).await;
    // Another keeper's disk in its place.
    let theirs = scene.group.edge(donor).wal();
    scene.group.edge(donor).kill().await;
    let edge = scene.group.edge(victim);
    std::fs::remove_dir_all(edge.wal()).unwrap();
    copy(&theirs, &edge.wal());
    println!("injected: the disk of edge {victim} is a copy of edge {donor}'s");
    edge.spawn();
    let status = edge.ends(SOON).await;
    assert!(
        !status.success(),
        "it took another's disk for its own\n{}",
        edge.log()
    );
    std::fs::remove_dir_all(edge.wal()).unwrap();
    std::fs::rename(&kept, edge.wal()).unwrap();
    scene.group.restart_all().await;
    scene.load.progress(50, SOON).await;
    let end = scene.finish(&[]).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_keeper_that_was_put_back_to_an_older_copy_is_refused() {
    let mut scene = Scene::set("d7").await;
    let leader = scene.group.led(SOON).await;
    let victim = leader % 3 + 1;
    let copy_of = scene.stage.folder().join("copy");
    scene.group.edge(victim).kill().await;
    copy(&scene.group.edge(victim).wal(), &copy_of);
    scene.group.edge(victim).restart().await;
    scene.load.progress(200, SOON).await;
    let edge = scene.group.edge(victim);
    edge.kill().await;
    let kept = scene.stage.folder().join("kept");
    std::fs::rename(edge.wal(), &kept).unwrap();
    std::fs::rename(&copy_of, edge.wal()).unwrap();
    println!("injected: the disk of edge {victim} is what it was 200 answers ago");
    edge.spawn();
    let status = edge.ends(SOON).await;
    assert!(
        !status.success(),
        "it voted on what it had forgotten\n{}",
        edge.log()
    );
    std::fs::remove_dir_all(edge.wal()).unwrap();
    std::fs::rename(&kept, edge.wal()).unwrap();
    scene.group.edge(victim).restart().await;
    let end = scene.finish(&[]).await;
    end.all_approved();
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success(), "cp ended with {copied}");
}

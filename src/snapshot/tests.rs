use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn identity() -> Identity {
    Identity::new("a", Some("prod"), 5, &[1; 16])
}

fn store(directory: &Path) -> Store {
    Store::new(directory, identity(), 1000)
}

fn slices() -> Vec<Vec<u8>> {
    (1..200u8).map(|i| vec![i; usize::from(i)]).collect()
}

/// What a restart finds.
fn found(store: &Store) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    store.restore(|slice| {
        found.push(slice.to_vec());
        Ok((1, 0))
    });
    found
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_written_is_found_and_nobody_else_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    for _ in 0..2 {
        store.write(slices().into_iter());
        assert_eq!(found(&store), slices());
        assert_eq!(names(directory.path()), [FILE]);
    }
    let metadata = fs::metadata(directory.path().join(FILE)).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(store.written(), Written { written: 2, failed: 0, bytes: metadata.len() });
}

/// Whatever byte a disk lost or changed.
#[test]
fn a_torn_snapshot_is_set_aside_and_no_slice_of_it_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    store.write(slices().into_iter());
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    let mut spoilt: Vec<Vec<u8>> = (0..whole.len()).step_by(97).map(|cut| whole[..cut].to_vec()).collect();
    spoilt.push(whole[..whole.len() - 1].to_vec());
    spoilt.push([&whole[..], b"x"].concat());
    for at in (0..whole.len()).step_by(101).chain([whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        spoilt.push(bytes);
    }
    for (i, bytes) in spoilt.into_iter().enumerate() {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(found(&store), Vec::<Vec<u8>>::new(), "case {i}");
        let names = names(directory.path());
        assert!(names.len() == 1 && names[0] != FILE, "case {i}: {names:?}");
        fs::remove_file(directory.path().join(&names[0])).unwrap();
    }
    // the next one is written all the same
    store.write(slices().into_iter());
    assert_eq!(found(&store), slices());
}

#[test]
fn a_snapshot_of_another_node_cluster_secret_or_version_is_set_aside_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let cases = [
        (Identity::new("b", Some("prod"), 5, &[1; 16]), "foreign"),
        (Identity::new("a", Some("test"), 5, &[1; 16]), "foreign"),
        (Identity::new("a", None, 5, &[1; 16]), "foreign"),
        (Identity::new("a", Some("prod"), 5, &[2; 16]), "foreign"),
    ];
    for (identity, name) in cases {
        Store::new(directory.path(), identity, 1000).write(slices().into_iter());
        assert!(found(&store(directory.path())).is_empty());
        assert_eq!(names(directory.path()), [format!("{FILE}.{name}")]);
    }
    let path = directory.path().join(FILE);
    fs::write(&path, "spillgate snapshot 2\nwhatever that may mean").unwrap();
    assert!(found(&store(directory.path())).is_empty());
    assert_eq!(names(directory.path()), [format!("{FILE}.foreign"), format!("{FILE}.newer")]);
}

#[test]
fn a_snapshot_of_which_nothing_counts_any_more_is_stale() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    store.write(slices().into_iter());
    store.restore(|_| Ok((0, 3)));
    assert_eq!(names(directory.path()), [format!("{FILE}.stale")]);
    // an empty one of a node that was idle is as good as any
    store.write(std::iter::empty());
    assert!(found(&store).is_empty());
    assert_eq!(names(directory.path()), [FILE.to_owned(), format!("{FILE}.stale")]);
}

/// A device that is always full. Its node may be a link, so that the directory itself is well.
#[test]
fn a_full_disk_costs_the_snapshot_and_leaves_the_last_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    store.write(slices().into_iter());
    std::os::unix::fs::symlink("/dev/full", directory.path().join(format!("{FILE}.tmp"))).unwrap();
    store.write(slices().into_iter().chain(slices()));
    assert_eq!(found(&store), slices());
    let Written { written, failed, .. } = store.written();
    assert_eq!((written, failed), (1, 1));
    // the link is gone with what could not be written
    assert_eq!(names(directory.path()), [FILE]);
    store.write(slices().into_iter());
    assert_eq!(store.written().written, 2);
}

#[test]
fn a_snapshot_grows_no_larger_than_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let slice = vec![1; 100_000];
    store.write(std::iter::repeat_n(slice.clone(), 1000));
    let bytes = fs::metadata(directory.path().join(FILE)).unwrap().len();
    assert!(bytes <= BYTES_MIN + 1000 * KEY_BYTES_MAX && bytes > 1_000_000, "{bytes}");
    // and what is in it is good
    assert_eq!(found(&store).len() as u64, bytes / 100_004);
}

#[test]
fn the_last_run_is_told_of_before_the_node_is_made() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(peek(directory.path(), "a", None), None);
    Store::new(directory.path(), Identity::new("a", None, 7, &[0x0f; 16]), 1000).write(std::iter::empty());
    assert_eq!(peek(directory.path(), "a", None), Some((7, Some([0x0f; 16]))));
    assert_eq!(peek(directory.path(), "b", None), None);
    // a cluster's key stays secret
    store(directory.path()).write(std::iter::empty());
    assert_eq!(peek(directory.path(), "a", Some("prod")), Some((5, None)));
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_one_process_s() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data/a");
    let first = claim(&directory).await.unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    let second = claim(&directory).await.unwrap_err().to_string();
    assert!(second.contains("in use by another process"), "{second}");
    drop(first);
    claim(&directory).await.unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(claim(&file).await.unwrap_err().to_string().contains("can't be used"));
}

//! One job gives one checksum, whoever computes it and whatever happens.

use crate::fake::{job, run};

#[tokio::test]
async fn any_number_of_workers_gives_the_same_bits() {
    let mut digests = Vec::new();
    for count in [1, 2, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let (outcome, digest) = run(&job(dir.path()), count).await;
        assert!(outcome.finished, "{}", outcome.reason);
        digests.push(digest);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

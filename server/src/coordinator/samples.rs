//! Which images a micro-batch is made of.

use hw2_common::ids::Assignment;
use hw2_common::job::Job;
use hw2_common::rng::{Stream, permutation};

/// The images of the micro-batch of `assignment`, as indices in the sorted training index.
pub(crate) fn of(job: &Job, assignment: Assignment) -> Vec<u32> {
    let mut orders = Vec::new();
    let mut sample = |index| {
        let (epoch, place) = job.position(assignment, index);
        if orders.last().is_none_or(|(known, _)| *known != epoch) {
            let stream = Stream::permutation(job.config.seed, epoch);
            orders.push((epoch, permutation(&stream, job.dataset.train)));
        }
        orders.last().expect("just pushed").1[place as usize]
    };
    (0..job.config.batch_size).map(&mut sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::tests::job;
    use hw2_common::ids::{GlobalStep, ReplicaId};

    #[test]
    fn micro_batches_use_every_image_once_and_run_on_over_the_epochs_end() {
        let mut job = job();
        job.config.replicas = 2;
        job.config.batch_size = 4;
        job.dataset.train = 10;
        let batches = (0..5).map(|number| {
            let step = GlobalStep(number / 2);
            of(&job, Assignment { step, replica: ReplicaId(number as u32 % 2) })
        });
        let all: Vec<u32> = batches.flatten().collect();
        for epoch in all.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
    }
}

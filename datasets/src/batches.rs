//! Batches of normalised images, in an order and with changes that only seed and epoch decide.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use crate::augment::{Augment, Change};
use crate::dataset::{Dataset, Split};
use crate::rng::Rng;

/// Some images, ready for a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Images, channels, height, width.
    pub shape: [usize; 4],
    /// The pixels in the order `N C H W`: `(p / 255 - mean) / std` with the channel's mean and deviation.
    pub images: Vec<f32>,
    /// A label an image.
    pub labels: Vec<u32>,
    /// Which batch of the epoch this is, from 0.
    pub index: usize,
}

impl Batch {
    /// The pixels, `N C H W`.
    pub fn images(&self) -> &[f32] {
        &self.images
    }

    /// A label an image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }
}

/// One epoch's batches, as they are to be made: say what differs from the defaults, then iterate.
///
/// ```
/// let data = dirnet_datasets::digits();
/// for batch in data.train_batches(64).seed(7).epoch(3).augment(data.augment) {
///     assert_eq!(batch.shape[1..], [1, 8, 8]);
/// }
/// ```
///
/// The batches depend on nothing else than what is said here: not on the workers, nor on
/// where an epoch was taken up again. An image's changes are drawn from (seed, epoch, its place in the
/// epoch's order).
#[derive(Debug, Clone)]
#[must_use = "batches are made when they are iterated over"]
pub struct Batches {
    split: Split,
    batch: usize,
    values: Arc<[[f32; 256]]>,
    seed: u64,
    epoch: u64,
    shuffle: bool,
    drop_last: bool,
    augment: Augment,
    from: usize,
    workers: usize,
}

impl Dataset {
    /// The training images in random order, normalised, `batch` at a time.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[track_caller]
    pub fn train_batches(&self, batch: usize) -> Batches {
        self.train.batches(batch).normalise(&self.mean, &self.std).shuffle(true)
    }

    /// The test images in their own order, normalised, `batch` at a time.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[track_caller]
    pub fn test_batches(&self, batch: usize) -> Batches {
        self.test.batches(batch).normalise(&self.mean, &self.std)
    }
}

impl Split {
    /// The images in their own order, scaled to `[0, 1]` but not normalised, `batch` at a time.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[track_caller]
    pub fn batches(&self, batch: usize) -> Batches {
        assert!(batch > 0, "batches: a batch needs at least one image");
        let channels = self.shape()[0];
        Batches {
            split: self.clone(),
            batch,
            values: values(&vec![0.0; channels], &vec![1.0; channels]),
            seed: 0,
            epoch: 0,
            shuffle: false,
            drop_last: false,
            augment: Augment::default(),
            from: 0,
            workers: 0,
        }
    }
}

impl Batches {
    /// What the random order and changes come from, with the epoch. Default 0.
    pub fn seed(self, seed: u64) -> Batches {
        Batches { seed, ..self }
    }

    /// The number of this epoch. Default 0.
    pub fn epoch(self, epoch: u64) -> Batches {
        Batches { epoch, ..self }
    }

    /// Whether the images come in random order. By default training images do, test images do not.
    pub fn shuffle(self, shuffle: bool) -> Batches {
        Batches { shuffle, ..self }
    }

    /// Whether to leave out a last batch that is not full. By default it is kept.
    pub fn drop_last(self, drop_last: bool) -> Batches {
        Batches { drop_last, ..self }
    }

    /// How to vary the images; `data.augment` is what suits a set. By default not at all.
    pub fn augment(self, augment: Augment) -> Batches {
        Batches { augment, ..self }
    }

    /// Begins at this batch of the epoch, to take training up again. Default 0.
    pub fn from(self, from: usize) -> Batches {
        Batches { from, ..self }
    }

    /// How many threads prepare batches ahead, at most two each. With 0, the default, the calling
    /// thread prepares each batch when it is asked for.
    pub fn workers(self, workers: usize) -> Batches {
        Batches { workers, ..self }
    }

    /// Subtracts a mean and divides by a standard deviation, one a channel, of pixels scaled to `[0, 1]`.
    ///
    /// # Panics
    /// If there is not one of each for every channel.
    #[track_caller]
    pub fn normalise(self, mean: &[f32], std: &[f32]) -> Batches {
        let channels = self.split.shape()[0];
        assert!(
            mean.len() == channels && std.len() == channels,
            "normalise: {} means and {} deviations for {channels} channels",
            mean.len(),
            std.len()
        );
        Batches { values: values(mean, std), ..self }
    }

    /// The number of batches in the whole epoch, wherever it begins.
    pub fn per_epoch(&self) -> usize {
        match self.drop_last {
            true => self.split.len() / self.batch,
            false => self.split.len().div_ceil(self.batch),
        }
    }
}

/// What each byte becomes, a table a channel: a lookup is faster than the arithmetic, and as exact.
fn values(mean: &[f32], std: &[f32]) -> Arc<[[f32; 256]]> {
    let table = |(m, s)| std::array::from_fn(|p| (p as f32 / 255.0 - m) / s);
    mean.iter().zip(std).map(table).collect()
}

impl IntoIterator for Batches {
    type Item = Batch;
    type IntoIter = BatchIter;

    fn into_iter(self) -> BatchIter {
        let mut order: Vec<u32> = (0..self.split.len() as u32).collect();
        if self.shuffle {
            Rng::keyed(self.seed, "order", &[self.epoch]).shuffle(&mut order);
        }
        let end = self.per_epoch();
        let next = self.from.min(end);
        let count = self.workers.min(end - next);
        let maker = Arc::new(Maker { order, batches: self });
        // Worker `w` makes every `count`-th batch, so taking turns keeps them in order. Should the system
        // refuse a thread, the batches are made here.
        let workers = (0..count)
            .map(|w| Worker::start(maker.clone(), (next + w..end).step_by(count)))
            .collect::<Result<_, _>>()
            .unwrap_or_default();
        BatchIter { maker, first: next, next, end, workers }
    }
}

/// The iterator over [`Batches`]. Dropping it midway stops its workers.
#[derive(Debug)]
pub struct BatchIter {
    maker: Arc<Maker>,
    first: usize,
    next: usize,
    end: usize,
    workers: Vec<Worker>,
}

impl Iterator for BatchIter {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if self.next == self.end {
            return None;
        }
        let index = self.next;
        self.next += 1;
        Some(match self.workers.len() {
            0 => self.maker.make(index),
            count => self.workers[(index - self.first) % count].take(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl ExactSizeIterator for BatchIter {}

#[derive(Debug)]
struct Maker {
    order: Vec<u32>,
    batches: Batches,
}

impl Maker {
    fn make(&self, index: usize) -> Batch {
        let Batches { split, batch, values, seed, epoch, augment, .. } = &self.batches;
        let [c, h, w] = split.shape();
        let start = index * batch;
        let chosen = &self.order[start..self.order.len().min(start + batch)];
        let mut images = vec![0.0; chosen.len() * c * h * w];
        for (place, (&i, out)) in chosen.iter().zip(images.chunks_exact_mut(c * h * w)).enumerate()
        {
            let change = match *augment == Augment::default() {
                true => Change::NONE,
                false => {
                    let place = (start + place) as u64;
                    augment.draw(&mut Rng::keyed(*seed, "augment", &[*epoch, place]))
                }
            };
            let planes = split.image(i as usize).chunks_exact(h * w);
            for ((plane, value), out) in planes.zip(&**values).zip(out.chunks_exact_mut(h * w)) {
                change.apply(plane, h, value, out);
            }
        }
        let labels = chosen.iter().map(|&i| split.label(i as usize)).collect();
        Batch { shape: [chosen.len(), c, h, w], images, labels, index }
    }
}

/// A thread that makes some of the batches, and the short queue it puts them in.
#[derive(Debug)]
struct Worker {
    queue: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(
        maker: Arc<Maker>,
        indices: impl Iterator<Item = usize> + Send + 'static,
    ) -> std::io::Result<Worker> {
        let (send, queue) = sync_channel(1);
        let work = move || {
            for index in indices {
                if send.send(maker.make(index)).is_err() {
                    return; // nobody wants the rest
                }
            }
        };
        let thread = thread::Builder::new().name("batches".into()).spawn(work)?;
        Ok(Worker { queue: Some(queue), thread: Some(thread) })
    }

    fn take(&mut self) -> Batch {
        if let Some(batch) = self.queue.as_ref().and_then(|queue| queue.recv().ok()) {
            return batch;
        }
        // The thread is gone before its work was done, so it panicked: so do we.
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => unreachable!("a worker makes all of its batches"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue = None; // wakes the thread where it waits for room
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic in a batch that nobody asked for is of no interest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten images of one channel, 2 x 3, image `i` holding `10 i ..`.
    fn toy() -> Split {
        let pixels = (0..10).flat_map(|i| (0..6).map(move |j| 10 * i + j)).collect();
        Split::new([1, 2, 3], pixels, (0..10).collect(), "toy")
    }

    fn labels(batches: Batches) -> Vec<u32> {
        batches.into_iter().flat_map(|b| b.labels).collect()
    }

    #[test]
    fn batches_come_whole_and_in_order() {
        let all: Vec<Batch> = toy().batches(4).into_iter().collect();
        let sizes: Vec<_> = all.iter().map(|b| (b.index, b.shape, b.labels.clone())).collect();
        assert_eq!(sizes[0], (0, [4, 1, 2, 3], vec![0, 1, 2, 3]));
        assert_eq!(sizes[2], (2, [2, 1, 2, 3], vec![8, 9]));
        assert_eq!(all[2].images[6..], [90, 91, 92, 93, 94, 95].map(|p| p as f32 / 255.0));
        assert_eq!(toy().batches(4).drop_last(true).into_iter().len(), 2);
        assert_eq!(labels(toy().batches(4).from(2)), [8, 9]);
        assert_eq!(labels(toy().batches(4).from(9)), []);
    }

    #[test]
    fn pixels_are_normalised_by_channel() {
        let split = Split::new([2, 1, 2], vec![0, 255, 51, 102], vec![0], "toy");
        let batches = split.batches(1).normalise(&[0.5, 0.2], &[0.5, 0.4]);
        let batch = batches.into_iter().next().unwrap();
        assert_eq!(batch.images(), [-1.0, 1.0, 0.0, (0.4 - 0.2) / 0.4]);
    }

    #[test]
    fn the_order_is_of_seed_and_epoch() {
        let order = |seed, epoch| labels(toy().batches(3).shuffle(true).seed(seed).epoch(epoch));
        assert_eq!(order(7, 3), order(7, 3));
        assert_ne!(order(7, 3), order(7, 4));
        assert_ne!(order(7, 3), order(8, 3));
        let mut sorted = order(7, 3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_eq!(order(7, 3), [7, 6, 0, 2, 5, 1, 3, 9, 4, 8]);
    }

    #[test]
    fn workers_and_resuming_change_nothing() {
        let how = Augment { shift: 1, flip: true };
        let batches = || toy().batches(3).shuffle(true).seed(1).epoch(2).augment(how);
        let alone: Vec<Batch> = batches().into_iter().collect();
        assert_ne!(alone[0].images, batches().epoch(3).into_iter().next().unwrap().images);
        for workers in [1, 2, 3, 8] {
            assert_eq!(batches().workers(workers).into_iter().collect::<Vec<_>>(), alone);
            let resumed: Vec<_> = batches().workers(workers).from(2).into_iter().collect();
            assert_eq!(resumed, alone[2..]);
        }
        // The changes follow the place in the epoch, so they do not depend on the size of a batch either.
        let flat = |b: Vec<Batch>| b.into_iter().flat_map(|b| b.images).collect::<Vec<_>>();
        let one: Vec<Batch> =
            toy().batches(10).shuffle(true).seed(1).epoch(2).augment(how).into_iter().collect();
        assert_eq!(flat(one), flat(alone));
    }

    #[test]
    fn dropping_midway_stops_the_workers() {
        let mut batches = toy().batches(1).workers(2).into_iter();
        assert_eq!(batches.next().unwrap().labels, [0]);
        let maker = Arc::downgrade(&batches.maker);
        drop(batches);
        assert!(maker.upgrade().is_none(), "a thread still holds the images");
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn a_workers_panic_is_not_swallowed() {
        let mut batches = toy().batches(5);
        batches.values = Arc::new([]);
        let maker = Arc::new(Maker { order: vec![99; 10], batches });
        let worker = Worker::start(maker.clone(), 0..2).unwrap();
        BatchIter { maker, first: 0, next: 0, end: 2, workers: vec![worker] }.next();
    }
}

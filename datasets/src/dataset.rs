//! Images with labels: a [`Split`] is one list of them, a [`Dataset`] a training and a test split.

use std::fmt;
use std::sync::Arc;

use crate::augment::Augment;
use crate::error::Error;
use crate::rng::Rng;

/// Labelled images of one size. Cloning, [`take`](Split::take) and [`holdout`](Split::holdout) share
/// the pixels and copy only a list of positions.
#[derive(Clone)]
pub struct Split {
    images: Arc<Images>,
    picks: Arc<[u32]>,
}

struct Images {
    /// Channels, height, width.
    shape: [usize; 3],
    /// `N C H W`, 0 to 255.
    pixels: Vec<u8>,
    labels: Vec<u32>,
    /// Where the labels come from, for messages.
    source: String,
}

impl Split {
    /// Images of `shape` channels, height, width: `pixels` in the order `N C H W`, and a label each.
    /// `source` is what messages call the labels: the name of their file, as a rule.
    ///
    /// # Panics
    /// If `pixels` does not hold exactly one image a label.
    #[track_caller]
    pub fn new(
        shape: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<u32>,
        source: impl Into<String>,
    ) -> Split {
        let size: usize = shape.iter().product();
        assert!(
            pixels.len() == labels.len() * size && u32::try_from(labels.len()).is_ok(),
            "Split: {} pixels are not {} images of {shape:?}",
            pixels.len(),
            labels.len(),
        );
        let picks = (0..labels.len() as u32).collect();
        let images = Images { shape, pixels, labels, source: source.into() };
        Split { images: Arc::new(images), picks }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    /// Whether there is no image at all.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Channels, height and width of each image.
    pub fn shape(&self) -> [usize; 3] {
        self.images.shape
    }

    /// The bytes of image `i`, in the order `C H W`.
    ///
    /// # Panics
    /// If there is no image `i`.
    #[track_caller]
    pub fn image(&self, i: usize) -> &[u8] {
        let size: usize = self.images.shape.iter().product();
        let at = self.picks[i] as usize * size;
        &self.images.pixels[at..at + size]
    }

    /// The label of image `i`.
    ///
    /// # Panics
    /// If there is no image `i`.
    #[track_caller]
    pub fn label(&self, i: usize) -> u32 {
        self.images.labels[self.picks[i] as usize]
    }

    /// The labels of all images, in order.
    pub fn labels(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).map(|i| self.label(i))
    }

    /// The first `n` images, or all of them where there are fewer.
    pub fn take(&self, n: usize) -> Split {
        self.view(self.picks[..n.min(self.len())].into())
    }

    /// Two parts of the images, the second a random `fraction` of them (rounded) chosen by `seed`, both in
    /// the old order.
    ///
    /// For choosing recipes without a look at the test images: train on the first, measure on the second.
    ///
    /// # Panics
    /// If `fraction` is not between 0 and 1.
    #[track_caller]
    pub fn holdout(&self, fraction: f64, seed: u64) -> (Split, Split) {
        assert!((0.0..=1.0).contains(&fraction), "holdout: {fraction} is not from 0 to 1");
        let mut picks = self.picks.to_vec();
        Rng::keyed(seed, "holdout", &[]).shuffle(&mut picks);
        let (held, kept) = picks.split_at_mut((fraction * self.len() as f64).round() as usize);
        held.sort_unstable();
        kept.sort_unstable();
        (self.view((&*kept).into()), self.view((&*held).into()))
    }

    fn view(&self, picks: Arc<[u32]>) -> Split {
        Split { images: self.images.clone(), picks }
    }

    fn check_labels(&self, classes: usize) -> Result<(), Error> {
        match self.labels().position(|label| label as usize >= classes) {
            None => Ok(()),
            Some(index) => Err(Error::Label {
                file: self.images.source.clone(),
                index,
                label: self.label(index).into(),
                classes,
            }),
        }
    }
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Split({} images of {:?})", self.len(), self.shape())
    }
}

/// A set of images for training and testing, and what a model has to know of it.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The name it was asked for by, `fashion-mini`.
    pub name: String,
    /// The images to learn from.
    pub train: Split,
    /// The images to judge by.
    pub test: Split,
    /// What the labels mean: label `i` is `classes[i]`.
    pub classes: Vec<String>,
    /// A channel's mean over all training images, of pixels scaled to `[0, 1]`.
    pub mean: Vec<f32>,
    /// A channel's standard deviation likewise; 1 where all pixels are equal, as it is divided by.
    pub std: Vec<f32>,
    /// The augmentation that suits these images.
    pub augment: Augment,
    /// Where it comes from and under which licence; may be empty.
    pub source: String,
}

impl Dataset {
    /// Joins two splits; measures mean and standard deviation; no augmentation, no source.
    ///
    /// # Errors
    /// If a split is empty, the images differ in size, or a label is not below the number of classes.
    pub fn new(
        name: impl Into<String>,
        train: Split,
        test: Split,
        classes: Vec<String>,
    ) -> Result<Dataset, Error> {
        for split in [&train, &test] {
            let file = &split.images.source;
            if split.is_empty() || split.shape().contains(&0) {
                return Err(Error::format(file, format!("{split:?}"), "at least one image"));
            }
            if split.shape() != train.shape() {
                return Err(Error::format(
                    file,
                    format!("test images of {:?}", test.shape()),
                    format!("{:?}, the shape of the training images", train.shape()),
                ));
            }
            split.check_labels(classes.len())?;
        }
        let (mean, std) = mean_and_std(&train);
        let (augment, source) = (Augment::default(), String::new());
        Ok(Dataset { name: name.into(), train, test, classes, mean, std, augment, source })
    }

    /// Channels, height and width of each image.
    pub fn shape(&self) -> [usize; 3] {
        self.train.shape()
    }

    /// Only the first `train` and `test` images. Mean and standard deviation stay the whole set's.
    pub fn limit(&self, train: usize, test: usize) -> Dataset {
        Dataset { train: self.train.take(train), test: self.test.take(test), ..self.clone() }
    }

    /// The same set with a random `fraction` of the training images in place of the test images: see
    /// [`Split::holdout`].
    ///
    /// # Panics
    /// If `fraction` is not between 0 and 1.
    #[track_caller]
    pub fn holdout(&self, fraction: f64, seed: u64) -> Dataset {
        let (train, test) = self.train.holdout(fraction, seed);
        Dataset { train, test, ..self.clone() }
    }
}

/// Of each channel, over pixels scaled to `[0, 1]`. The sums are whole numbers, so their order is free.
fn mean_and_std(split: &Split) -> (Vec<f32>, Vec<f32>) {
    let [channels, height, width] = split.shape();
    let mut sums = vec![[0u64; 2]; channels];
    for i in 0..split.len() {
        for (sum, plane) in sums.iter_mut().zip(split.image(i).chunks_exact(height * width)) {
            for &p in plane {
                sum[0] += u64::from(p);
                sum[1] += u64::from(p) * u64::from(p);
            }
        }
    }
    let n = (split.len() * height * width) as f64;
    sums.iter()
        .map(|&[sum, squares]| {
            let mean = sum as f64 / n;
            let variance = (squares as f64 / n - mean * mean).max(0.0);
            let std = if variance > 0.0 { variance.sqrt() / 255.0 } else { 1.0 };
            ((mean / 255.0) as f32, std as f32)
        })
        .unzip()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The number of images of each of ten classes.
    pub(crate) fn counts(split: &Split) -> [usize; 10] {
        std::array::from_fn(|class| split.labels().filter(|&l| l as usize == class).count())
    }

    pub(crate) fn pixel_sum(split: &Split) -> u64 {
        (0..split.len()).flat_map(|i| split.image(i)).map(|&p| u64::from(p)).sum()
    }

    fn split(labels: &[u32]) -> Split {
        let pixels = (0..labels.len() as u8 * 2).collect();
        Split::new([2, 1, 1], pixels, labels.to_vec(), "toy labels")
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| i.to_string()).collect()
    }

    #[test]
    fn views_share_their_pixels() {
        let all = split(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let few = all.take(3);
        assert_eq!((few.len(), few.image(2), few.label(2)), (3, &[4, 5][..], 2));
        assert!(Arc::ptr_eq(&all.images, &few.images));
        assert_eq!(all.take(99).len(), 10);
    }

    #[test]
    fn holdout_splits_by_seed() {
        let all = split(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let (kept, held) = all.holdout(0.3, 1);
        let (kept, held): (Vec<_>, Vec<_>) = (kept.labels().collect(), held.labels().collect());
        assert_eq!((kept.len(), held.len()), (7, 3));
        assert!(kept.is_sorted() && held.is_sorted());
        let mut both = [kept, held.clone()].concat();
        both.sort_unstable();
        assert_eq!(both, (0..10).collect::<Vec<_>>());
        assert_eq!(all.holdout(0.3, 1).1.labels().collect::<Vec<_>>(), held);
        assert!((2..9).any(|s| all.holdout(0.3, s).1.labels().collect::<Vec<_>>() != held));
    }

    #[test]
    fn a_channel_has_its_mean_and_deviation() {
        let train = Split::new([2, 1, 2], vec![0, 255, 51, 51, 255, 0, 51, 51], vec![0, 0], "toy");
        let data = Dataset::new("toy", train.clone(), train, names(1)).unwrap();
        assert_eq!(data.mean, [0.5, 0.2]);
        assert_eq!(data.std, [0.5, 1.0]);
    }

    #[test]
    fn a_set_that_does_not_fit_together_is_refused() {
        let refuse = |train: &Split, test: &Split, classes| {
            Dataset::new("toy", train.clone(), test.clone(), names(classes))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refuse(&split(&[0, 1]), &split(&[0, 2, 1]), 2),
            "toy labels: found label 2 at index 1, expected a label from 0 to 1: the set has 2 classes"
        );
        let wide = Split::new([1, 1, 2], vec![0; 2], vec![0], "wide");
        assert_eq!(
            refuse(&split(&[0]), &wide, 2),
            "wide: found test images of [1, 1, 2], expected [2, 1, 1], the shape of the training images"
        );
        let none = split(&[0]).take(0);
        assert!(refuse(&none, &split(&[0]), 1).contains("expected at least one image"));
    }
}

//! Handwritten digits of 8 x 8 pixels, small enough to train on in seconds.

use std::io::Cursor;

use crate::dataset::Dataset;
use crate::npz;

/// The optical digits of the UCI repository: 1797 images of 8 x 8 pixels in ten classes, by 13 writers.
///
/// The originals count ink from 0 to 16; a byte here is `round(255 · ink / 16)`. 1347 images are for training
/// and 450 for testing, as scikit-learn's `train_test_split(test_size=450, random_state=0)` draws them.
///
/// E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
/// doi 10.24432/C50P49, CC BY 4.0; this copy by way of scikit-learn's `load_digits`.
pub fn digits() -> Dataset {
    let archive = Cursor::new(include_bytes!("../data/digits.npz"));
    let [train, test] = npz::splits(archive, "digits.npz").expect("the embedded digits are sound");
    let classes = (0..10).map(|i| i.to_string()).collect();
    let data = Dataset::new("digits", train, test, classes).expect("the embedded digits are sound");
    let source = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning \
                  Repository, 1998; CC BY 4.0";
    Dataset { source: source.into(), ..data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::{counts, pixel_sum};

    #[test]
    fn the_digits_are_the_digits() {
        let data = digits();
        assert_eq!(data.shape(), [1, 8, 8]);
        assert_eq!(counts(&data.train), [141, 139, 133, 138, 143, 134, 129, 131, 126, 133]);
        assert_eq!(counts(&data.test), [37, 43, 44, 45, 38, 48, 52, 48, 48, 47]);
        assert_eq!((pixel_sum(&data.train), pixel_sum(&data.test)), (6_722_572, 2_231_229));
        assert_eq!((data.mean[0], data.std[0]), (0.305_807_2, 0.376_350_76));
        // The first image is a two: 0 3 13 16 9 0 0 0 in the original's top row.
        assert_eq!(data.train.label(0), 2);
        assert_eq!(data.train.image(0)[..8], [0, 48, 207, 255, 143, 0, 0, 0]);
    }
}

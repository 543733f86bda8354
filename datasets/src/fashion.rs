//! Clothes of 28 x 28 pixels: the part of Fashion-MNIST that fits into a package.

use std::io::Cursor;

use crate::augment::Augment;
use crate::dataset::Dataset;
use crate::npz;

pub(crate) const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

pub(crate) const SOURCE: &str =
    "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, Zalando SE, 2017, arXiv 1708.07747; MIT";

/// Clothes keep their class when mirrored or moved a little.
pub(crate) const AUGMENT: Augment = Augment { shift: 2, flip: true };

/// The first 10,000 training images and all 10,000 test images of Fashion-MNIST, 28 x 28 grey pixels in ten
/// classes, white on black.
///
/// H. Xiao, K. Rasul, R. Vollgraf, 2017, arXiv 1708.07747, MIT licence.
pub fn fashion_mini() -> Dataset {
    let archive = Cursor::new(include_bytes!("../data/fashion-mini.npz"));
    let sound = "the embedded clothes are sound";
    let [train, test] = npz::splits(archive, "fashion-mini.npz").expect(sound);
    let classes = CLASSES.map(String::from).to_vec();
    let data = Dataset::new("fashion-mini", train, test, classes).expect(sound);
    Dataset { source: SOURCE.into(), augment: AUGMENT, ..data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::{counts, pixel_sum};

    #[test]
    fn the_clothes_are_the_clothes() {
        let data = fashion_mini();
        assert_eq!(data.shape(), [1, 28, 28]);
        assert_eq!(counts(&data.train), [942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000]);
        assert_eq!(counts(&data.test), [1000; 10]);
        assert_eq!((pixel_sum(&data.train), pixel_sum(&data.test)), (572_388_787, 573_469_082));
        assert_eq!((data.mean[0], data.std[0]), (0.286_308_9, 0.354_017_97));
        assert_eq!([data.train.label(0), data.test.label(0)], [9, 9]);
    }
}

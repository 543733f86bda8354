//! Image sets for `dirnet`.

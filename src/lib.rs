//! dirnet

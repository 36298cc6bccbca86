//! Who gets which certificate.

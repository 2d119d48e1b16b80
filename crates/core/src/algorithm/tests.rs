//! Tests of the meters.

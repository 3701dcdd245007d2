//! Table of the packets. Filled next.

//! Facts, as the journal keeps them: first the kind byte, then the bincode form.

use postrider::core::fact::Fact;

pub fn run(bytes: &[u8]) {
    let Some((kind, meta)) = bytes.split_first() else { return };
    let fact = match Fact::decode(*kind, meta) {
        Ok(fact) => fact,
        Err(error) => return assert!(error.to_string().contains("does not decode")),
    };
    let mut encoded = Vec::new();
    fact.encode_into(&mut encoded);
    assert!(encoded.len() <= meta.len(), "{fact:?} was read from fewer bytes than it has");
    let longer = [meta, &[0]].concat();
    assert!(Fact::decode(*kind, &longer).is_err(), "{fact:?} was read though a byte follows it");
    let again = Fact::decode(fact.kind(), &encoded).expect("what was encoded decodes");
    assert_eq!(again, fact);
    assert_eq!(again.key(), fact.key());
}

//! What a decoder counts against its limit for a value. Numbers, lengths and indexes count as wide as they are in memory, not
//! as they are written: a name of one byte is two bytes, and counts nine.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::fmt;

/// A length, a count, or any number of 64 bits.
const LENGTH: usize = 8;
/// The index of a variant.
const VARIANT: usize = 4;
/// Before an optional value.
const OPTION: usize = 1;
/// At most so much counts whatever takes one byte.
pub const PER_BYTE_MAX: usize = LENGTH;

/// What decoding `value` counts; `None` for one that cannot be encoded.
pub fn weight(value: &impl Serialize) -> Option<usize> {
    let mut scale = Scale(0);
    value.serialize(&mut scale).ok()?;
    Some(scale.0)
}

struct Scale(usize);

impl Scale {
    fn add(&mut self, weight: usize) -> Result<(), fmt::Error> {
        self.0 = self.0.checked_add(weight).ok_or(fmt::Error)?;
        Ok(())
    }

    fn begin(&mut self, weight: usize) -> Result<&mut Self, fmt::Error> {
        self.add(weight)?;
        Ok(self)
    }
}

macro_rules! fixed {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, _: $type) -> Result<(), fmt::Error> { self.add(size_of::<$type>()) })*
    };
}

impl<'a> Serializer for &'a mut Scale {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = &'a mut Scale;
    type SerializeTuple = &'a mut Scale;
    type SerializeTupleStruct = &'a mut Scale;
    type SerializeTupleVariant = &'a mut Scale;
    type SerializeMap = &'a mut Scale;
    type SerializeStruct = &'a mut Scale;
    type SerializeStructVariant = &'a mut Scale;

    fixed!(
        serialize_bool: bool, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_f32: f32, serialize_f64: f64
    );

    fn serialize_char(self, char: char) -> Result<(), fmt::Error> {
        self.add(char.len_utf8())
    }

    fn serialize_str(self, text: &str) -> Result<(), fmt::Error> {
        self.serialize_bytes(text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), fmt::Error> {
        self.add(LENGTH)?;
        self.add(bytes.len())
    }

    fn serialize_none(self) -> Result<(), fmt::Error> {
        self.add(OPTION)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(self.begin(OPTION)?)
    }

    fn serialize_unit(self) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), fmt::Error> {
        self.add(VARIANT)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self.begin(VARIANT)?)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.begin(LENGTH)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.begin(VARIANT)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.begin(LENGTH)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.begin(VARIANT)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! items {
    ($($part:ident: $method:ident),*) => {
        $(impl $part for &mut Scale {
            type Ok = ();
            type Error = fmt::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        })*
    };
}

macro_rules! fields {
    ($($part:ident),*) => {
        $(impl $part for &mut Scale {
            type Ok = ();
            type Error = fmt::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), fmt::Error> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        })*
    };
}

items!(
    SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field
);
fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for &mut Scale {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), fmt::Error> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), fmt::Error> {
        Ok(())
    }
}

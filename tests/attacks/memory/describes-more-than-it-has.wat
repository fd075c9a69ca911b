;; Describes assets in memory that it does not have.
;; expect: not-described trapped
;; says: out of bounds

(func $describe (result i32)
  (i32.store (i32.const 2048) (i32.const 8192)) (i32.store (i32.const 2052) (i32.const 0x01000000))
  (i32.const 2048))

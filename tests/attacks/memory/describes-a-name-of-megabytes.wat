;; Describes an asset whose name has 10 MB.
;; expect: not-described out-of-bounds
;; says: the name of asset number 1 has 10000000 bytes

(memory (export "memory") 200)
(func $describe (result i32)
  (i32.store (i32.const 8192) (i32.const 65536)) (i32.store (i32.const 8196) (i32.const 10000000))
  (i32.store (i32.const 2048) (i32.const 8192)) (i32.store (i32.const 2052) (i32.const 1))
  (i32.const 2048))

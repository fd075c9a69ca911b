;; Describes 1,000 assets with 1,000 inputs each, which are all the same kilobyte: small there, a gigabyte here.
;; expect: not-described trapped
;; says: fuel allocated for hostcalls has been exhausted

(memory (export "memory") 8)
(func $describe (result i32)
  (local $at i32)
  ;; Each asset's list of inputs is at 262144, and has 1,000 of 32 bytes.
  (local.set $at (i32.const 65536))
  (loop $again
    (i32.store offset=20 (local.get $at) (i32.const 262144)) (i32.store offset=24 (local.get $at) (i32.const 1000))
    (local.set $at (i32.add (local.get $at) (i32.const 68)))
    (br_if $again (i32.lt_u (local.get $at) (i32.const 133536))))
  (i32.store (i32.const 2048) (i32.const 65536)) (i32.store (i32.const 2052) (i32.const 1000))
  (i32.const 2048))

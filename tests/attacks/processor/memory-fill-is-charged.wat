;; Moves gigabytes in a few instructions, to compute for a long time with little fuel.
;; expect: out-of-fuel
;; limits: fuel=1G memory=16MiB

(memory (export "memory") 250)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (memory.fill (i32.const 65536) (i32.const 7) (i32.const 16000000)) (br $again)) unreachable)

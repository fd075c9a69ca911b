;; Fills 16 MB of memory in one instruction, for ever.
;; expect: timed-out
;; says: at its deadline of 300 ms
;; limits: fuel=1T memory=16MiB timeout=300ms

(memory (export "memory") 250)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (memory.fill (i32.const 65536) (i32.const 7) (i32.const 16000000)) (br $again)) unreachable)
